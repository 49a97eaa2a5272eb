"""Do the files and folders that the arguments name exist, and is nothing in the way? Looked at before anything slow starts."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from paddlealign.arguments.comparison_fields import ComparisonArguments
from paddlealign.arguments.fields import TrainingArguments
from paddlealign.arguments.given import list_problems
from paddlealign.arguments.hub import checkpoints_by_id, is_hub_id
from paddlealign.arguments.judge_fields import JudgeArguments, split_judge
from paddlealign.arguments.results import (
    Arguments,
    DpoArguments,
    EvaluateCompareArguments,
    EvaluateJudgeArguments,
    EvaluatePerplexityArguments,
    EvaluateRewardsArguments,
    ExportArguments,
    PredictArguments,
    RewardArguments,
    TrainArguments,
)
from paddlealign.arguments.row_files import DatasetFiles, dataset_files
from paddlealign.arguments.sample_fields import SampleArguments
from paddlealign.arguments.scoring_fields import PerplexityArguments, ScoringArguments
from paddlealign.arguments.template_names import template_problem
from paddlealign.errors import UserError

# What a run writes into output_dir, beside its checkpoints and the final model.
RUN_FILE, METRICS_FILE, CURVES_FILE, ERROR_FILE = "run.json", "metrics.jsonl", "curves.png", "errors.txt"
INCIDENTS_FILE = "incidents.jsonl"
REFUSED_FILE = "refused.jsonl"
SAMPLES_FOLDER, REFERENCE_FOLDER, MARGINS_FOLDER = "samples", "reference", "margins"
DATA_FILE, PAGE_FILE = "data.json", "report.html"
CHECKPOINT = "checkpoint-[0-9]*"
ADAPTER_CONFIG = "adapter_config.json"
# What is never opened as rows, whatever is in it.
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".pdparams", ".npy", ".npz")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".7z", ".rar")
WRITTEN = (
    RUN_FILE, METRICS_FILE, CURVES_FILE, CHECKPOINT, ERROR_FILE, REFUSED_FILE, "config.json", "generation_config.json", "*.safetensors",
    "*.index.json", ADAPTER_CONFIG, SAMPLES_FOLDER, MARGINS_FOLDER, INCIDENTS_FILE, "replay_*.json", DATA_FILE, PAGE_FILE,
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.*",
)  # fmt: skip


def check_paths(arguments: Arguments) -> None:
    """Raise UserError with everything that is missing or in the way. Nothing is created or changed.

    A checkpoint by a hub's id passes; ``hub.fetch_checkpoints`` then has it or says why not.
    """
    problems: list[str] = []
    if not isinstance(arguments, EvaluateJudgeArguments):
        _check_checkpoint("model_name_or_path", arguments.model.model_name_or_path, problems)
        if arguments.model.tokenizer_name_or_path:
            _check_folder("tokenizer_name_or_path", arguments.model.tokenizer_name_or_path, problems)
        if arguments.adapter.lora_path:
            _check_adapter("lora_path", arguments.adapter.lora_path, problems)
    if isinstance(arguments, PredictArguments):
        generation = arguments.generation
        _check_template(generation.chat_template, problems)
        if generation.data_file and not generation.interactive:
            if not Path(generation.data_file).is_file():
                problems.append(f"data_file: {generation.data_file} is not a file.")
            problems += _no_rows("data_file", [Path(generation.data_file)])
            if Path(generation.output_file).is_dir():
                problems.append(f"output_file: {generation.output_file} is a folder; name a file.")
    elif isinstance(arguments, EvaluateRewardsArguments | EvaluatePerplexityArguments):
        _check_scoring(arguments.scoring, ("data_file",), problems)
    elif isinstance(arguments, EvaluateJudgeArguments):
        _check_judge(arguments.scoring, problems)
    elif isinstance(arguments, EvaluateCompareArguments):
        _check_checkpoint("baseline_model_name_or_path", arguments.comparison.baseline_model_name_or_path, problems)
        _check_scoring(arguments.comparison, ("data_file",), problems)
    elif isinstance(arguments, ExportArguments):
        output = Path(arguments.target.output_dir)
        found = output.is_dir() and (_holds(output, "config.json") or _holds(output, "*.safetensors"))
        if output.exists() and not output.is_dir():
            problems.append(f"output_dir: {output} is a file; name a folder.")
        elif found:
            problems.append(f"output_dir: {output} holds a model already ({found}). Name another folder.")
    else:
        _check_template(arguments.data.chat_template, problems)
        folders: dict[str, str | None] = {key: getattr(arguments.model, key) for key in ("model_name_or_path", "tokenizer_name_or_path")}
        folders["lora_path"] = arguments.adapter.lora_path
        if isinstance(arguments, DpoArguments) and Path(arguments.objective.reference_cache_dir or ".").is_file():
            problems.append(f"reference_cache_dir: {arguments.objective.reference_cache_dir} is a file; name a folder.")
        if Path(arguments.data.dataset_cache_dir or ".").is_file():
            problems.append(f"dataset_cache_dir: {arguments.data.dataset_cache_dir} is a file; name a folder.")
        if isinstance(arguments, DpoArguments) and arguments.objective.ref_model_name_or_path:
            folders["ref_model_name_or_path"] = arguments.objective.ref_model_name_or_path
            _check_checkpoint("ref_model_name_or_path", arguments.objective.ref_model_name_or_path, problems)
        if not isinstance(arguments, RewardArguments) and arguments.samples.sample_during_eval:
            folders |= _check_samples(arguments.samples, problems)
        if isinstance(arguments, DpoArguments) and arguments.objective.ref_lora_path:
            folders["ref_lora_path"] = arguments.objective.ref_lora_path
            _check_adapter("ref_lora_path", arguments.objective.ref_lora_path, problems)
        sources = {key: Path(folder) for key, folder in folders.items() if folder}
        _check_output(arguments.training, sources, problems)
        try:
            waits = problems and any(map(is_hub_id, arguments.data.dataset_name_or_path or ()))  # a hub may take minutes to answer
            files = DatasetFiles((), ()) if waits else dataset_files(arguments.data, arguments.rows, arguments.training)
        except UserError as error:
            problems.append(str(error))
            files = DatasetFiles((), ())
        problems += _no_rows("train_dataset_path", files.train) + _no_rows("dev_dataset_path", files.dev)
        _check_written(arguments.training, [("the data file", file) for file in (*files.train, *files.dev)], problems)
    if problems:
        problems += [
            f"{key}: there is no folder {name}; a hub is asked for it when the rest is right."
            for _, key, name in checkpoints_by_id(arguments)
        ]
        raise UserError(list_problems(problems))


def check_model(arguments: TrainArguments) -> None:
    """Raise UserError where a model's folder or its config.json is missing; nothing else is needed for a plan."""
    problems: list[str] = []
    _check_checkpoint("model_name_or_path", arguments.model.model_name_or_path, problems)
    if isinstance(arguments, DpoArguments) and arguments.objective.ref_model_name_or_path:
        _check_checkpoint("ref_model_name_or_path", arguments.objective.ref_model_name_or_path, problems)
    if problems:
        raise UserError(list_problems(problems))


def _check_folder(key: str, path: str, problems: list[str]) -> bool:
    """Whether a path is a folder, and its insides are to be looked at. A hub's id is none, and no problem yet."""
    if Path(path).is_dir():
        return True
    if Path(path).exists():
        problems.append(f"{key}: {path} is a file; give the folder of a checkpoint.")
    elif not is_hub_id(path):
        problems.append(f"{key}: there is no folder {path}, and it is no hub's id, which is two words: org/name.")
    return False


def _check_checkpoint(key: str, path: str, problems: list[str]) -> None:
    if not _check_folder(key, path, problems) or (Path(path) / "config.json").is_file():
        return
    if (Path(path) / ADAPTER_CONFIG).is_file():
        problems.append(f"{key}: {path} holds an adapter. Give the base model here, and this folder as lora_path.")
    else:
        problems.append(f"{key}: {path} holds no config.json, so it is no HuggingFace checkpoint.")


def _check_adapter(key: str, path: str, problems: list[str]) -> None:
    if _check_folder(key, path, problems) and not (Path(path) / ADAPTER_CONFIG).is_file():
        problems.append(f"{key}: {path} holds no {ADAPTER_CONFIG}, so it is no adapter in peft's layout.")


def _check_scoring(
    scoring: ScoringArguments | PerplexityArguments | JudgeArguments | ComparisonArguments, sources: tuple[str, ...], problems: list[str]
) -> None:
    """What is read by the keys ``sources`` is there, and what is written is not."""
    _check_template(scoring.chat_template, problems)
    problems += [f"{key}: {getattr(scoring, key)} is not a file." for key in sources if not Path(getattr(scoring, key)).is_file()]
    problems += [line for key in sources for line in _no_rows(key, [Path(getattr(scoring, key))])]
    if Path(scoring.output_file).exists() and not scoring.check:
        problems.append(f"output_file: {scoring.output_file} exists already. Name another one, or remove it.")


def _no_rows(key: str, files: Sequence[Path]) -> list[str]:
    """What to say of files that hold no rows as text or tables: a pickle may ask for any code to be run, an archive write anywhere."""
    wrong = [file for file in files if file.is_file() and file.name.lower().endswith((*_PICKLES, *_ARCHIVES))]
    return [
        f"{key}: {file} is {'a pickle or an array' if file.name.lower().endswith(_PICKLES) else 'an archive'}, which is never opened as "
        f"data. {'Write its rows' if file.name.lower().endswith(_PICKLES) else 'Unpack it, and name the files of rows'}: JSON lines, csv, "
        "parquet or arrow."
        for file in wrong
    ]


def _check_judge(judging: JudgeArguments, problems: list[str]) -> None:
    _check_scoring(judging, ("answers_a", "answers_b"), problems)
    if judging.judge:
        if not Path(split_judge(judging.judge)[0]).is_file():
            problems.append(f"judge: {split_judge(judging.judge)[0]} is not a file.")
        return
    for key in ("reward_model_name_or_path", "policy_model_name_or_path", "ref_model_name_or_path"):
        if getattr(judging, key):
            _check_checkpoint(key, getattr(judging, key), problems)
    if judging.tokenizer_name_or_path:
        _check_folder("tokenizer_name_or_path", judging.tokenizer_name_or_path, problems)


def _check_samples(samples: SampleArguments, problems: list[str]) -> dict[str, str | None]:
    """What sampling reads, by its key."""
    if samples.sample_data_file and not Path(samples.sample_data_file).is_file():
        problems.append(f"sample_data_file: {samples.sample_data_file} is not a file.")
    if samples.sample_reward_model:
        _check_checkpoint("sample_reward_model", samples.sample_reward_model, problems)
    return {"sample_data_file": samples.sample_data_file, "sample_reward_model": samples.sample_reward_model}


def _check_template(template: str, problems: list[str]) -> None:
    problem = template_problem(template)
    problems += [problem] if problem else []


def _check_output(training: TrainingArguments, folders: Mapping[str, Path], problems: list[str]) -> None:
    """No folder that the run reads, and no model that is not a run's, may lie where the run writes."""
    output = Path(training.output_dir)
    if output.exists() and not output.is_dir():
        problems.append(f"output_dir: {output} is a file; name a folder.")
        return
    for key, folder in folders.items():
        if output.resolve() == folder.resolve():
            problems.append(f"output_dir: {output} is {key} itself, which is never written to. Name another folder.")
    _check_written(training, list(folders.items()), problems)
    resume = training.resume_from_checkpoint
    if resume and resume not in ("true", "auto") and not Path(resume).is_dir():
        problems.append(f"resume_from_checkpoint: there is no folder {resume}; in {output} there are: {_checkpoints(output)}.")
    if resume in (None, "auto") and output.is_dir() and not _holds(output, RUN_FILE) and not _holds(output, CHECKPOINT):
        found = _holds(output, "config.json") or _holds(output, "*.safetensors")
        if found and not any(output.resolve() == folder.resolve() for folder in folders.values()):
            problems.append(
                f"output_dir: {output} holds a model that no run of PaddleAlign made ({found}), which would be replaced. "
                "Name another folder."
            )


def _check_written(training: TrainingArguments, sources: Sequence[tuple[str, Path]], problems: list[str]) -> None:
    """Nothing that the run reads, (what it is, where), may lie under a name that it writes."""
    output = Path(training.output_dir)
    for key, path in sources:
        place = _written_place(output, path)
        if place:
            problems.append(
                f"output_dir: {key} {path} lies in {output} as {place}, which the run writes or removes. Name another output_dir."
            )


def _written_place(output: Path, source: Path) -> str | None:
    """Under which name that the run writes a source lies in the output folder; None where it is safe."""
    output, source = output.resolve(), source.resolve()
    if output not in source.parents:
        return None
    name = source.relative_to(output).parts[0]
    return name if any(fnmatch(name, pattern) for pattern in WRITTEN) else None


def _holds(folder: Path, pattern: str) -> str | None:
    """The first name in a folder that fits."""
    return next((path.name for path in sorted(folder.glob(pattern))), None)


def _checkpoints(output: Path) -> str:
    """The names of the checkpoints in a folder, oldest first, or "none"."""
    steps = sorted(int(path.name.removeprefix("checkpoint-")) for path in output.glob(CHECKPOINT) if path.name[11:].isdigit())
    return ", ".join(f"checkpoint-{step}" for step in steps) or "none"
