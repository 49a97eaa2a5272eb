"""How a family's files name and group the decoder's parameters: renamed modules, and several of ours in one tensor of theirs.

The decoder's parameters always bear LLaMA's names. Rows are those of files, where a linear layer is [out, in] and its bias [out].
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class Layout:
    """The names that a family's files give to the decoder's modules; a module that is not listed has the same name in both.

    renamed: our module to theirs, with ``*`` for the layer's number ("model.layers.*.self_attn.o_proj").
    fused: their module to those of ours that lie in it, in order. by_head: whether the parts alternate head by head (rows of head 0's
    query, key, value, then head 1's), or lie one whole part after another.
    """

    renamed: Mapping[str, str]
    fused: Mapping[str, tuple[str, ...]]
    by_head: bool


HUGGINGFACE = Layout({}, {}, False)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file. parts: our parameters in it, in order. groups: how often they alternate; 1 where they do not."""

    name: str
    parts: tuple[str, ...]
    groups: int


def stored_tensors(parameters: Mapping[str, tuple[int, ...]], layout: Layout, num_heads: int) -> list[StoredTensor]:
    """The tensors that hold ``parameters``, in the order of their first parts.

    parameters: our names to our shapes (a linear layer is [in, out]). A fused tensor is there where all of its parts are; one with a
    part missing, or with a part that does not divide into ``num_heads``, is a ValueError: no file could hold it.
    """
    holders = {part: (theirs, parts) for theirs, parts in layout.fused.items() for part in parts}
    found: dict[str, StoredTensor] = {}
    for name in parameters:
        numbered, kind = name.rsplit(".", 1)
        number = _NUMBER.search(numbered)
        module = _NUMBER.sub("*", numbered, count=1)

        def real(pattern: str, number: re.Match[str] | None = number, kind: str = kind) -> str:
            return f"{pattern.replace('*', number.group() if number else '*')}.{kind}"

        theirs, ours = holders.get(module, (layout.renamed.get(module, module), (module,)))
        parts = tuple(real(part) for part in ours)
        groups = num_heads if module in holders and layout.by_head else 1
        for part in parts:
            if part not in parameters or (groups > 1 and parameters[part][-1] % groups):
                raise ValueError(f"{real(theirs)} holds {', '.join(parts)}, but {part} is missing or not a multiple of {groups}")
        found.setdefault(real(theirs), StoredTensor(real(theirs), parts, groups))
    return list(found.values())


def segments(sizes: Sequence[int], groups: int) -> Iterator[tuple[int, int, int, int]]:
    """Which rows of a stored tensor are which rows of its parts: (part, first row in the part, first row in the tensor, rows).

    sizes: rows of each part. groups: see StoredTensor.
    """
    at = 0
    for group in range(groups):
        for part, size in enumerate(sizes):
            rows = size // groups
            yield part, group * rows, at, rows
            at += rows
