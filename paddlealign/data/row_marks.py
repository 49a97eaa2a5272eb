"""What a message says of scoring: OpenAI's ``weight``, and ``train`` and ``train_detail`` as axolotl reads them. From there to marks."""

from typing import Any

from paddlealign.data.example import Marks

MARK_KEYS = ("weight", "train", "train_detail")
_DETAIL = 'a list of {"begin_offset", "end_offset", "train"}, whose offsets are characters of the text, the end one counted in'


def read_marks(item: dict[str, Any], name: str, role: str, content: str | None) -> Marks:
    """The marks of a message. Raises ValueError where they are none, or stand where nothing is scored."""
    weight, train = item.get("weight"), item.get("train")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise ValueError(f"{name}.weight is {_shown(weight)}; it must be 0 (not scored) or 1.")
    if train is not None and not isinstance(train, bool):
        raise ValueError(f"{name}.train is {_shown(train)}; it must be true or false.")
    if weight is not None and train is not None and bool(weight) != train:
        raise ValueError(f"{name} has weight {weight} and train {str(train).lower()}, which say the opposite. Keep one of them.")
    wanted = train if weight is None else bool(weight)
    parts = _parts(item["train_detail"], f"{name}.train_detail", content) if item.get("train_detail") is not None else None
    if parts is not None and wanted is not None and bool(parts) != wanted:
        raise ValueError(f"{name}.train_detail and {'train' if weight is None else 'weight'} say the opposite. Keep one of them.")
    wanted = bool(parts) if parts is not None else wanted
    if role != "assistant":
        if wanted:
            raise ValueError(f"{name} has role {role} and is marked to be scored; only an assistant's turns are.")
        return Marks()
    return Marks(wanted, parts or None)


def _parts(value: Any, name: str, content: str | None) -> tuple[tuple[int, int], ...]:
    """The characters that are scored, from the first up to the second of each pair; neighbours as one."""
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value) or not content:
        raise ValueError(f"{name} is {_shown(value)}; it must be {_DETAIL}, beside a text.")
    parts: list[tuple[int, int]] = []
    for index, part in enumerate(value):
        begin, end, train = part.get("begin_offset"), part.get("end_offset"), part.get("train")
        whole = [isinstance(offset, int) and not isinstance(offset, bool) for offset in (begin, end)]
        if not all(whole) or not isinstance(train, bool) or not 0 <= begin <= end < len(content):
            raise ValueError(f"{name}[{index}] is {_shown(part)}; train_detail is {_DETAIL}. The text has {len(content)} characters.")
        parts += [(begin, end + 1)] if train else []
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(parts):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return tuple(joined)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
