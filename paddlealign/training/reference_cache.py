"""The reference's log-probs on disk: computed once, kept in parts while that lasts, and used again only where they are sound.

A table's file is named by its fingerprint, a hash of all that the numbers depend on. While a table is computed, ``<name>.part-<N>`` files
hold what is done so far, so that a run that was broken off goes on there, on any number of processes. Each file has a checksum of its
content and its fingerprint. Files appear whole or not at all, so runs that compute the same table at the same time do not harm each other.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from paddlealign.data.example import Example
from paddlealign.data.packing import idle_batch, lengths_of, make_batch, pack_rows
from paddlealign.errors import UserError
from paddlealign.messages.language import translated
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import read_tensors, remove_parts, write_tensors
from paddlealign.parallel.collect import sum_over
from paddlealign.parallel.pipeline import LONE_CHAIN, Chain
from paddlealign.parallel.topology import SINGLE, Topology
from paddlealign.saying import shows_bars
from paddlealign.training.precision import Precision
from paddlealign.training.reference import model_logps

# A packed row for the reference holds this many tokens, or one example where that is longer.
ROW_TOKENS = 2048
# So many packed rows make a part of a table.
PART_ROWS = 64


class Found(NamedTuple):
    """What a cache holds of a table. logps: float32 [examples, 2], NaN where nothing is known. remarks: what was not used, and why."""

    logps: np.ndarray
    remarks: list[str]


@dataclass(frozen=True)
class Parts:
    """A table that is computed in parts.

    known: float32 [examples, 2], NaN where it is still to be computed. keep: called in the main process with the numbers and the log-probs
    of some examples, int64 [some] and float32 [some, 2], as they are done.
    """

    known: np.ndarray
    keep: Callable[[np.ndarray, np.ndarray], None]


def fingerprint(tokens: str, weights: str, dtype: str, ld_alpha: float = 1.0) -> str:
    """A name for the reference's log-probs of these examples: a hash of all that they depend on, 32 hexadecimal digits.

    tokens: ``examples_hash`` of the examples, which stands for data, tokenizer, template, lengths and truncation at once.
    weights: of ``reference.weights_hash``, and of an adapter beside them. dtype: of the computation.
    ld_alpha: see ``objective.weighted_logps``.
    """
    weighed = f" ld_alpha {ld_alpha}" if ld_alpha != 1.0 else ""
    return hashlib.sha256(f"paddlealign reference 2 {dtype}{weighed} {weights} {tokens}".encode()).hexdigest()[:32]


def compute_logps(
    model: Decoder,
    examples: Sequence[Example],
    pad_id: int,
    precision: Precision,
    what: str,
    show: bool,
    topology: Topology = SINGLE,
    chain: Chain = LONE_CHAIN,
    ld_alpha: float = 1.0,
    parts: Parts | None = None,
) -> np.ndarray:
    """Log-probs of every response of preference examples: float32 [examples, 2]. what: the bar's label; show: whether there is one.

    Processes that read different rows share the work, each row alone in its batch, so that their number changes no bit; all get the whole
    table. ld_alpha: see ``objective.weighted_logps``. parts: what is known already, and where what is done goes; None: nothing and nowhere.
    Raises UserError where the model gives a number that is not finite.
    """
    lengths = lengths_of(examples)
    rows = pack_rows(lengths, int(lengths.max(initial=ROW_TOKENS)), best_fit=True)
    logps = np.full((len(examples), 2), np.nan, "float32") if parts is None else parts.known.copy()
    own, data = np.zeros_like(logps), topology.data
    to_do = [row for row in rows if np.isnan(logps[list(row)]).any()]
    done: list[int] = []  # examples since the last part
    hide = not (show and topology.is_main and shows_bars())
    title = translated(what, sys.stderr)
    with tqdm(total=len(rows), initial=len(rows) - len(to_do), desc=title, unit="row", leave=False, disable=hide) as bar:
        for start in range(0, len(to_do), data.size):
            together = to_do[start : start + data.size]
            mine = together[data.rank : data.rank + 1]
            batch = make_batch(examples, mine, pad_id) if mine else idle_batch(pad_id)
            found = model_logps(model, batch, precision, chain, ld_alpha)
            if mine:
                own[batch.example_ids] = found.reshape(-1, 2)
            done.extend(index for row in together for index in row)
            bar.update(len(together))
            if (start + len(together)) // PART_ROWS > start // PART_ROWS or start + len(together) == len(to_do):
                numbers = np.array(sorted(done), "int64")
                logps[numbers] = sum_over(data, own[numbers])
                _check_finite(logps[numbers], what)
                if parts is not None and topology.is_main:
                    parts.keep(numbers, logps[numbers])
                done = []
    return logps


def _check_finite(logps: np.ndarray, what: str) -> None:
    broken = int((~np.isfinite(logps)).sum())
    if broken:
        raise UserError(
            f"{what}: {broken:,} of {logps.size:,} log-probs are NaN or infinite, so that nothing can be held against them; they were not "
            "kept. Try the reference in another dtype (reference_dtype), or look at its weights"
        )


def read_cache(folder: Path, name: str, examples: int) -> Found:
    """What a folder holds of the table of that fingerprint: all of it, or the parts that are done. What is damaged is not used."""
    logps, remarks = np.full((examples, 2), np.nan, "float32"), []
    whole = folder / f"{name}.safetensors"
    for path in [whole, *_parts(folder, name)]:
        if path == whole and not path.exists():
            continue
        try:
            numbers, values = _read(path, name, examples)
        except UserError as error:
            remarks.append(f"{error} What it held is computed again.")
            continue
        logps[numbers] = values
        if path == whole:
            break
    return Found(logps, remarks)


def _read(path: Path, name: str, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and log-probs of the examples in one file. Raises UserError unless they are what was written, for that fingerprint."""
    try:
        tensors = read_tensors(path)
    except UserError as error:
        raise UserError(f"{path}: it is damaged, or was not written whole.") from error
    if tensors.keys() != {"examples", "logps", "sha256"}:
        raise UserError(f"{path}: it holds {', '.join(sorted(tensors)) or 'nothing'}, not examples, logps and sha256.")
    numbers, logps = tensors["examples"], tensors["logps"]
    if numbers.dtype != np.int64 or numbers.ndim != 1 or logps.dtype != np.float32 or logps.shape != (len(numbers), 2):
        raise UserError(f"{path}: examples are {numbers.dtype} {numbers.shape} and logps {logps.dtype} {logps.shape}.")
    if tensors["sha256"].tobytes() != _checksum(name, numbers, logps):
        raise UserError(f"{path}: its checksum is not that of its content under this name; it was changed, or is another table's.")
    if len(np.unique(numbers)) != len(numbers) or not ((numbers >= 0) & (numbers < examples)).all():
        raise UserError(f"{path}: it numbers other examples than the {examples:,} of these rows.")
    if not np.isfinite(logps).all():
        raise UserError(f"{path}: it holds log-probs that are NaN or infinite.")
    return numbers, logps


def write_cache(folder: Path, name: str, logps: np.ndarray) -> None:
    """Keep a whole table under its fingerprint, and let its parts go. logps: float32 [examples, 2]."""
    _write(folder / f"{name}.safetensors", name, np.arange(len(logps)), logps)
    _remove_leftovers(folder, name)


def settle_cache(folder: Path, name: str, logps: np.ndarray) -> None:
    """Let the parts of a known table go; where a build was killed behind its last part, the whole table is written first.

    logps: float32 [examples, 2].
    """
    if (folder / f"{name}.safetensors").exists():
        _remove_leftovers(folder, name)
    else:
        write_cache(folder, name, logps)


def _remove_leftovers(folder: Path, name: str) -> None:
    """Take away the parts of a table that is whole, and what writes that were killed left in the folder."""
    for path in _parts(folder, name):
        with suppress(OSError):  # another run that has the same table may have done it
            path.unlink()
    remove_parts(folder)


def write_part(folder: Path, name: str, numbers: np.ndarray, logps: np.ndarray) -> None:
    """Keep what is done of a table. numbers: of the examples, int64 [some]. logps: float32 [some, 2]."""
    _write(folder / f"{name}.part-{numbers[0]:09d}.safetensors", name, numbers, logps)


def _parts(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}.part-*.safetensors"))


def _write(path: Path, name: str, numbers: np.ndarray, logps: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"reference_cache_dir: {path.parent} cannot be made ({error.strerror or error}); name another folder") from error
    checksum = np.frombuffer(_checksum(name, numbers, logps), np.uint8)
    write_tensors(path, {"examples": numbers, "logps": logps, "sha256": checksum}, {"fingerprint": name})


def _checksum(name: str, numbers: np.ndarray, logps: np.ndarray) -> bytes:
    return hashlib.sha256(name.encode() + numbers.tobytes() + np.ascontiguousarray(logps).tobytes()).digest()
