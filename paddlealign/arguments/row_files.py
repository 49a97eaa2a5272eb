"""Which files hold the rows: a file, several, a pattern, a folder with splits, or a data set as it was downloaded from a hub."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

from paddlealign.arguments.dataset_card import Subset, default_subset, matching_files, read_subsets
from paddlealign.arguments.fields import DataArguments, TrainingArguments
from paddlealign.arguments.hub import hub_files, is_hub_id
from paddlealign.arguments.row_fields import RowArguments
from paddlealign.errors import UserError

ROW_SUFFIXES = tuple(kind + packed for kind in (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow") for packed in ("", ".gz", ".zst"))
DEV_SPLITS = ("dev", "validation", "valid", "val", "eval", "test")
_SPLITS = ("train", *DEV_SPLITS)
_SPLIT_LIKE = re.compile(rf"(?:^|[-_. /])({'|'.join(_SPLITS)})", re.IGNORECASE)
_Splits = tuple[str, ...]
# What the datasets library and hubs write beside the rows.
_NO_ROWS = (
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "croissant.json",
    "configuration.json",
    "config.json",
)


class DatasetFiles(NamedTuple):
    """The files of training and of evaluation rows, in the order in which they are read."""

    train: tuple[Path, ...]
    dev: tuple[Path, ...]


def dataset_files(data: DataArguments, rows: RowArguments, training: TrainingArguments) -> DatasetFiles:
    """The files that the run reads: training rows under do_train, dev rows under do_eval, else none. Raises UserError.

    In a folder the rows of a split are those that the configs of its README.md name. Where it has none: train.json (or another row file of
    that name), or else the files in its folder train, or else those whose names say train, as hubs write them; dev likewise. A file or
    pattern in dataset_name_or_path holds training rows. A hub's id is loaded by the datasets library.
    """
    train = train_sources(data, rows) if training.do_train else ()
    dev: tuple[Path, ...] = ()
    if training.do_eval:
        splits = (rows.dev_split,) if rows.dev_split else DEV_SPLITS
        dev = tuple(file for path in _sources("dev", data.dev_dataset_path, data, rows, splits) for file in path)
    return DatasetFiles(tuple(file for path in train for file in path), dev)


def train_sources(data: DataArguments, rows: RowArguments) -> tuple[tuple[Path, ...], ...]:
    """The files of training rows, those of each given path together. Raises UserError."""
    return _sources("train", data.train_dataset_path, data, rows, (rows.split,))


def _sources(part: str, files: list[str] | None, data: DataArguments, rows: RowArguments, splits: _Splits) -> tuple[tuple[Path, ...], ...]:
    key = f"{part}_dataset_path"
    if files:
        return tuple(_files_at(key, name, rows, splits) for name in files)
    if not data.dataset_name_or_path:
        raise UserError(f"{key} is not set, and no dataset_name_or_path either.")
    return tuple(_of_root(part, name, rows, splits) for name in data.dataset_name_or_path)


def _of_root(part: str, name: str, rows: RowArguments, splits: _Splits) -> tuple[Path, ...]:
    """The files of the first split that is there under one path of dataset_name_or_path."""
    root, key = Path(name), "dataset_name_or_path"
    if not root.is_dir():
        found = _matching(name)
        if not found and is_hub_id(name) and not name.endswith(ROW_SUFFIXES):
            return hub_files(name, "split" if part == "train" else "dev_split", splits, rows.subset)
        if not found:
            _refuse_odd(key, root)
            raise UserError(f"{key}: {root} is neither a folder nor a file, and no hub's id, which is two words: org/name.")
        if part == "dev":
            raise UserError(
                f"{key}: {root} is one file, of training rows. Set dev_dataset_path too, or switch evaluation off "
                "(--evaluation_strategy no, --do_eval false)."
            )
        return found
    found = _in_folder(root, splits, rows.subset)
    if not found and part == "train" and not any(_SPLIT_LIKE.search(str(file.relative_to(root))) for file in _row_files(root)):
        folders = [root] if not rows.subset or rows.subset == ["all"] else [_subset_folder(root, subset) for subset in rows.subset]
        found = _one_subset(root, tuple(file for folder in folders for file in _row_files(folder)), rows.subset)
    if found:
        return found
    split, there = splits[0], ", ".join(list(dict.fromkeys(_name_of(file) for file in _row_files(root)))[:8])
    raise UserError(
        f"{key}: {root} holds neither {split}.json, {split}.jsonl nor a folder {split}, and no file of rows whose name says so"
        + (f" (there are: {there}; see {'split' if part == 'train' else 'dev_split'})" if there else "")
        + f". Set {part}_dataset_path to the file."
    )


def _files_at(key: str, name: str, rows: RowArguments, splits: _Splits) -> tuple[Path, ...]:
    """A file, a pattern's files, or all files of rows that lie in a folder; where these are of several splits, those of one."""
    path = Path(name)
    if not path.is_dir():
        found = _matching(name)
        if not found:
            _refuse_odd(key, path)
            raise UserError(f"{key}: {name} does not exist." if not _is_pattern(name) else f"{key}: no file fits the pattern {name}.")
        return found
    here = tuple(sorted(entry for entry in path.iterdir() if _holds_rows(entry)))
    if here and read_subsets(path):
        return _in_folder(path, splits, rows.subset)
    words = {match[1].lower() if match else "" for match in (_SPLIT_LIKE.search(file.name) for file in here)}
    if len(words) == 1:
        return here
    found = _in_folder(path, splits, rows.subset)
    if not found:
        kinds, names = f" ({', '.join(ROW_SUFFIXES[::3])}; .gz and .zst behind them)", ", ".join(file.name for file in here[:8])
        seen = f" of {splits[0]}; there are: {names}. Name the files that are meant, or the split" if here else kinds
        raise UserError(f"{key}: {path} holds no file of rows{seen}.")
    return found


def _matching(name: str) -> tuple[Path, ...]:
    """The file of that name, or the files that fit a pattern, in the order of their names."""
    if Path(name).is_file():
        return (Path(name),)
    return tuple(path for path in map(Path, sorted(glob(name, recursive=True))) if path.is_file()) if _is_pattern(name) else ()


def _refuse_odd(key: str, path: Path) -> None:
    """Raise UserError for what is there and is neither a file nor a folder."""
    if path.exists():
        raise UserError(f"{key}: {path} is a pipe or a device. Rows are read more than once; write them to a file first.")


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _in_folder(root: Path, splits: _Splits, subsets: Sequence[str] | None) -> tuple[Path, ...]:
    """The files of the first split that a folder has; none where it has none. Raises UserError where it is not clear which are meant."""
    described = read_subsets(root)
    if described:
        names = list(subsets or [default_subset(described, root)])
        names = list(described) if names == ["all"] and "all" not in described else names
        return tuple(dict.fromkeys(file for name in names for file in _of_subset(root, name, described, splits)))
    if subsets and list(subsets) != ["all"]:
        return tuple(file for name in subsets for file in _in_folder(_subset_folder(root, name), splits, ["all"]))
    return _by_name(root, splits, subsets)


def _of_subset(root: Path, name: str, described: Mapping[str, Subset], splits: _Splits) -> tuple[Path, ...]:
    """The rows of a subset that a folder's README.md describes, or else of the folder of that name."""
    if name not in described:
        return _in_folder(_subset_folder(root, name, tuple(described)), splits, ["all"])
    subset = described[name]
    if subset.patterns is None:
        return _by_name(subset.folder, splits, ["all"])
    found = tuple(file for file in matching_files(subset, splits) if _holds_rows(file))
    if not found:
        raise UserError(
            f"dataset_name_or_path: {root / 'README.md'} names no file of rows that is here for {splits[0]} of {name}; its splits are: "
            f"{', '.join(subset.patterns)}."
        )
    return found


def _by_name(root: Path, splits: _Splits, subsets: Sequence[str] | None) -> tuple[Path, ...]:
    found = (_of_split(root, split, subsets) for split in splits)
    return next((files for files in found if files), ())


def _of_split(root: Path, split: str, subsets: Sequence[str] | None) -> tuple[Path, ...]:
    single = [path for path in (root / f"{split}{suffix}" for suffix in ROW_SUFFIXES) if path.is_file()]
    if len(single) > 1:
        raise UserError(f"dataset_name_or_path: {root} holds {single[0].name} and {single[1].name}. Keep one, or set {split}_dataset_path.")
    if single:
        return tuple(single)
    if (root / split).is_dir():
        found = tuple(sorted(entry for entry in (root / split).iterdir() if _holds_rows(entry)))
        if found:
            return found
    return _one_subset(root, tuple(file for file in _row_files(root) if _split_of(file.relative_to(root), (split,))), subsets)


def _subset_folder(root: Path, name: str, described: Sequence[str] = ()) -> Path:
    folders = [folder for folder in (root / name, root / "data" / name) if folder.is_dir()]
    if not folders:
        there = described or sorted({_subset_of(file.relative_to(root)) for file in _row_files(root)} - {""})
        raise UserError(f"subset: {root} has no subset {name}; there are: {', '.join(there) or 'none'}.")
    return folders[0]


def _one_subset(root: Path, files: tuple[Path, ...], subsets: Sequence[str] | None) -> tuple[Path, ...]:
    """The files, unless they are of several subsets and nobody said which is meant."""
    names = sorted({_subset_of(file.relative_to(root)) for file in files})
    if len(names) > 1 and not subsets:
        raise UserError(
            f"dataset_name_or_path: {root} holds {len(names)} subsets: {', '.join(name or '(the folder itself)' for name in names)}. "
            "Set subset to one, to several, or to all."
        )
    return files


def _row_files(root: Path) -> Iterator[Path]:
    """All files of rows under a folder, in the order of their names, without hidden ones."""
    for path in sorted(root.rglob("*")):
        if _holds_rows(path) and not any(part.startswith((".", "_")) for part in path.relative_to(root).parts):
            yield path


def _holds_rows(path: Path) -> bool:
    return path.is_file() and path.name.endswith(ROW_SUFFIXES) and path.name not in _NO_ROWS and _is_current(path)


def _is_current(path: Path) -> bool:
    """False for an arrow file that the datasets library left beside the rows: a step of map's, or a shard of what was saved there before.

    Raises UserError for rows that were saved as a selection of others, which only the library can follow.
    """
    if path.suffix != ".arrow" or re.fullmatch(r"cache-[0-9a-f]+(?:_\d+_of_\d+)?\.arrow", path.name):
        return path.suffix != ".arrow"
    try:
        state = json.loads((path.parent / "state.json").read_text(encoding="utf-8"))
        files = [file["filename"] for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return True  # no folder of save_to_disk
    if state.get("_indices_data_files"):
        raise UserError(f"{path.parent} was saved as a selection of other rows. Save it again by save_to_disk of a newer datasets library.")
    return path.name in files


def _split_of(file: Path, splits: Sequence[str]) -> str | None:
    """Which of the splits a file is of: train.json, train-00000-of-00002.parquet, my_train.csv, train/0000.parquet."""
    stem = _name_of(file)
    for split in splits:
        if split in file.parts[:-1] or re.fullmatch(rf"(?:.*[-_. ])?{re.escape(split)}", stem):
            return split
    return None


def _name_of(file: Path) -> str:
    """A file's name without its ending and without the number and hash of its part."""
    ending = next(suffix for suffix in sorted(ROW_SUFFIXES, key=len, reverse=True) if file.name.endswith(suffix))
    return re.sub(r"[-_. ]?\d+(?:-of-\d+(?:-[0-9a-f]{8,})?)?$", "", file.name.removesuffix(ending))


def _subset_of(file: Path) -> str:
    """The folders that a file of a data set lies in, without those that only hold all rows or a split's."""
    return "/".join(part for part in file.parts[:-1] if part != "data" and part not in _SPLITS)
