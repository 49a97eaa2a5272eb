"""A checkpoint's manifest: how long each of its files is and its sha256, as it was written, and whether that is what lies there now."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from paddlealign.models.tensor_files import Written, write_json

MANIFEST_FILE = "manifest.json"
# Files are read side by side: the sum lets Python's lock go.
_READERS = 4


def write_manifest(folder: Path, written: Mapping[str, Written]) -> None:
    """Keep what was written to a checkpoint's folder. written: by path within the folder."""
    write_json(folder / MANIFEST_FILE, {"files": {name: it._asdict() for name, it in sorted(written.items())}})


def find_damage(folder: Path, below: str = "") -> list[str]:
    """What of a checkpoint is not as it was written, one text a file; empty where all is. Reads every file of it.

    below: look only at files whose path within the folder begins so. A folder without a manifest has nothing to be held to: see
    ``has_manifest``.
    """
    if not has_manifest(folder):
        return []
    try:
        entries = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))["files"]
        expected = {name: Written(int(entry["size"]), str(entry["sha256"])) for name, entry in entries.items()}
    except OSError as error:
        return [f"{MANIFEST_FILE} cannot be read: {error.strerror or error}"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{MANIFEST_FILE} is damaged"]
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(lambda name: _compare(folder / name, name, expected[name]), [it for it in expected if it.startswith(below)])
        return [text for text in found if text is not None]


def has_manifest(folder: Path) -> bool:
    """Whether a checkpoint can be checked: those of earlier versions cannot."""
    return (folder / MANIFEST_FILE).exists()


def _compare(path: Path, name: str, expected: Written) -> str | None:
    """What is wrong with one file; None where nothing is."""
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        if size != expected.size:
            cut = "cut short" if size < expected.size else "too long"
            return f"{name} is {cut}: {size:,} bytes are there, {expected.size:,} were written"
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror or error}"
    return None if digest.hexdigest() == expected.sha256 else f"{name} was changed since it was written (its sha256 is another)"
