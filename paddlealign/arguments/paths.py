"""Do the files and folders that the arguments name exist, and which files hold the rows? Looked at before anything slow starts."""

from pathlib import Path
from typing import NamedTuple

from paddlealign.arguments.fields import DataArguments, TrainingArguments
from paddlealign.arguments.given import list_problems
from paddlealign.arguments.parsing import Arguments, PredictArguments
from paddlealign.errors import UserError

ROW_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


class DatasetFiles(NamedTuple):
    """The files of training and of evaluation rows, in the order in which they are read."""

    train: tuple[Path, ...]
    dev: tuple[Path, ...]


def dataset_files(data: DataArguments, training: TrainingArguments) -> DatasetFiles:
    """The files that the run reads: training rows under do_train, dev rows under do_eval, else none.

    train_dataset_path and dev_dataset_path are files (or folders of row files). Under the folder dataset_name_or_path the rows are
    train.json or train.jsonl, or else every .json and .jsonl in train/; dev likewise. A file there holds training rows. Raises UserError.
    """
    root = Path(data.dataset_name_or_path) if data.dataset_name_or_path else None
    train = _split("train", data.train_dataset_path, root) if training.do_train else ()
    dev = _split("dev", data.dev_dataset_path, root) if training.do_eval else ()
    return DatasetFiles(train, dev)


def check_paths(arguments: Arguments) -> None:
    """Raise UserError with everything that is missing or in the way. Nothing is created or changed."""
    problems: list[str] = []
    _check_checkpoint("model_name_or_path", arguments.model.model_name_or_path, problems)
    if arguments.model.tokenizer_name_or_path:
        _check_folder("tokenizer_name_or_path", arguments.model.tokenizer_name_or_path, problems)
    if isinstance(arguments, PredictArguments):
        generation = arguments.generation
        _check_template(generation.chat_template, problems)
        if generation.data_file and not generation.interactive:
            if not Path(generation.data_file).is_file():
                problems.append(f"data_file: {generation.data_file} is not a file.")
            if Path(generation.output_file).is_dir():
                problems.append(f"output_file: {generation.output_file} is a folder; name a file.")
    else:
        _check_template(arguments.data.chat_template, problems)
        _check_output(arguments.training, arguments.model.model_name_or_path, problems)
        if arguments.command == "dpo" and arguments.objective.ref_model_name_or_path:
            _check_checkpoint("ref_model_name_or_path", arguments.objective.ref_model_name_or_path, problems)
        try:
            dataset_files(arguments.data, arguments.training)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(list_problems(problems))


def _split(split: str, files: list[str] | None, root: Path | None) -> tuple[Path, ...]:
    key = f"{split}_dataset_path"
    if files:
        return tuple(found for name in files for found in _files_at(key, Path(name)))
    key = "dataset_name_or_path"
    if root is None:
        raise UserError(f"{split}_dataset_path is not set, and no dataset_name_or_path either.")
    if root.is_file():
        if split == "dev":
            raise UserError(f"{key}: {root} is one file, of training rows. Set dev_dataset_path too, or switch evaluation off.")
        return (root,)
    if not root.is_dir():
        raise UserError(f"{key}: {root} is neither a folder nor a file.")
    single = [root / f"{split}{suffix}" for suffix in ROW_SUFFIXES if (root / f"{split}{suffix}").is_file()]
    if len(single) > 1:
        raise UserError(f"{key}: {root} holds {single[0].name} and {single[1].name}. Keep one, or set {split}_dataset_path.")
    if single:
        return tuple(single)
    if (root / split).is_dir():
        return _files_at(key, root / split)
    raise UserError(f"{key}: {root} holds neither {split}.json, {split}.jsonl nor a folder {split}. Set {split}_dataset_path to the file.")


def _files_at(key: str, path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise UserError(f"{key}: {path} does not exist.")
    found = tuple(sorted(entry for entry in path.iterdir() if entry.is_file() and entry.name.endswith(ROW_SUFFIXES)))
    if not found:
        raise UserError(f"{key}: {path} holds no .json or .jsonl file.")
    return found


def _check_folder(key: str, path: str, problems: list[str]) -> bool:
    if Path(path).is_dir():
        return True
    if Path(path).exists():
        problems.append(f"{key}: {path} is a file; give the folder of a checkpoint.")
    else:
        problems.append(
            f"{key}: there is no folder {path}. Nothing is fetched from a hub: download the checkpoint and give the folder that it is in."
        )
    return False


def _check_checkpoint(key: str, path: str, problems: list[str]) -> None:
    if _check_folder(key, path, problems) and not (Path(path) / "config.json").is_file():
        problems.append(f"{key}: {path} holds no config.json, so it is no HuggingFace checkpoint.")


def _check_template(template: str, problems: list[str]) -> None:
    if template in ("auto", "none"):
        return
    if Path(template).suffix == ".json":
        problems.append(f"chat_template: {template} is PaddleNLP's own form, which is not read. Give a .jinja file, auto or none.")
    elif not Path(template).is_file():
        problems.append(f'chat_template: "{template}" is neither auto, none, nor a file. Give the path of a .jinja file.')


def _check_output(training: TrainingArguments, model: str, problems: list[str]) -> None:
    output, source = Path(training.output_dir), Path(model)
    if output.exists() and not output.is_dir():
        problems.append(f"output_dir: {output} is a file; name a folder.")
    if output.resolve() == source.resolve():
        problems.append(f"output_dir: {output} is model_name_or_path itself, which is never written to. Name another folder.")
    if training.overwrite_output_dir and output.resolve() in source.resolve().parents:
        problems.append(f"overwrite_output_dir would remove the model at {source}, which lies in output_dir. Name another output_dir.")
    resume = training.resume_from_checkpoint
    if resume and resume != "true":
        _check_folder("resume_from_checkpoint", resume, problems)
