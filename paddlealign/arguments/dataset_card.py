"""The ``configs:`` block of a data set's README.md, by which its author says which files are which subset and split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import yaml

from paddlealign.errors import UserError

_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_HELP = "Mend it, or set train_dataset_path (and dev_dataset_path) to the files"


@dataclass(frozen=True)
class Subset:
    """A subset of a data set as its README.md describes it.

    patterns: split -> patterns of its files, relative to ``folder``; None where only the folder is named. default: taken where no subset
    is named.
    """

    folder: Path
    patterns: Mapping[str, tuple[str, ...]] | None
    default: bool


def read_subsets(root: Path) -> dict[str, Subset]:
    """The subsets that the README.md in a folder describes, by name; empty where it describes none. Raises UserError for a bad one."""
    card = root / "README.md"
    if not card.is_file():
        return {}
    front = _FRONT.match(card.read_text(encoding="utf-8", errors="replace"))
    if not front or not re.search(r"^configs:", front[1], re.MULTILINE):
        return {}
    try:
        # libyaml's loader, where it is there: cards that describe thousands of columns take the other one seconds.
        content = yaml.load(front[1], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{card}: its configs cannot be read: {str(error).splitlines()[0]}. {_HELP}.") from None
    configs = content.get("configs") if isinstance(content, dict) else None
    if not configs:
        return {}
    if not isinstance(configs, list) or not all(isinstance(item, dict) and "config_name" in item for item in configs):
        raise UserError(f"{card}: configs is no list of config_name and data_files. {_HELP}.")
    return {str(item["config_name"]): _subset(root, card, item) for item in configs}


def _subset(root: Path, card: Path, item: Mapping[str, Any]) -> Subset:
    name, files, folder = item["config_name"], item.get("data_files"), str(item.get("data_dir") or ".")
    wrong = UserError(f"{card}: data_files of {name} are no pattern, no list of patterns, and no list of split and path. {_HELP}.")
    if files is not None and not isinstance(files, list):
        files = [files]
    if files is None:
        patterns = None
    elif all(isinstance(entry, str) for entry in files):
        patterns = {"train": tuple(files)}
    elif all(isinstance(entry, dict) and {"split", "path"} <= entry.keys() for entry in files):
        patterns = {}
        for entry in files:
            paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            if not all(isinstance(path, str) for path in paths):
                raise wrong
            patterns[str(entry["split"])] = (*patterns.get(str(entry["split"]), ()), *paths)
    else:
        raise wrong
    for text in (folder, *(path for paths in (patterns or {}).values() for path in paths)):
        if "://" in text or text.startswith("/") or ".." in Path(text).parts:
            raise UserError(f"{card}: {name} lies outside of the folder, in {text}. {_HELP}.")
    return Subset(root / folder, patterns, item.get("default") is True)


def default_subset(subsets: Mapping[str, Subset], root: Path) -> str:
    """The subset that is meant where none is named: the only one, or the one that says so. Raises UserError where several are meant."""
    marked = [name for name, subset in subsets.items() if subset.default] or [name for name in subsets if name == "default"]
    if len(subsets) == 1 or len(marked) == 1:
        return next(iter(marked or subsets))
    names = ", ".join(subsets)
    raise UserError(f"dataset_name_or_path: {root} holds {len(subsets)} subsets: {names}. Set subset to one, to several, or to all.")


def matching_files(subset: Subset, splits: Sequence[str]) -> tuple[Path, ...]:
    """All files that fit the patterns of the first of ``splits`` that the subset has, in the order of the patterns; none where it has none.

    A pattern that names a folder means all that lies below it.
    """
    split = next((split for split in splits if split in (subset.patterns or {})), None)
    found: dict[Path, None] = {}
    for pattern in (subset.patterns or {}).get(split or "", ()):
        for name in sorted(glob(pattern, root_dir=subset.folder, recursive=True)):
            path = subset.folder / name
            found |= dict.fromkeys([path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file()))
    return tuple(found)
