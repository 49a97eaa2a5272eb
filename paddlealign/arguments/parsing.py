"""From the words on the command line to the filled dataclasses: file, names, values, PdArgumentParser, cross-checks."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_type_hints, overload

from paddlealign.arguments.checks import resolve
from paddlealign.arguments.command_line import split_command_line
from paddlealign.arguments.decoding import stop_strings_text
from paddlealign.arguments.degrees import PARALLEL_KEYS, read_environment, settle_degrees
from paddlealign.arguments.dialects.files import is_yaml, read_for_start, setting_of
from paddlealign.arguments.fields import MAIN_SCRIPTS, PATH_KEYS, SECTIONS
from paddlealign.arguments.foreign import ALIASES, HINTS, NEAREST, ONLY
from paddlealign.arguments.given import Given, list_problems
from paddlealign.arguments.json_file import read_argument_file
from paddlealign.arguments.paddlenlp_parser import format_help, parse_sections
from paddlealign.arguments.plan_fields import PlanArguments
from paddlealign.arguments.ranges import range_problem
from paddlealign.arguments.results import (
    Arguments,
    Command,
    DpoArguments,
    EvaluateCompareArguments,
    EvaluateJudgeArguments,
    EvaluatePerplexityArguments,
    EvaluateRewardsArguments,
    ExportArguments,
    PredictArguments,
    RewardArguments,
    SftArguments,
    TrainArguments,
)
from paddlealign.arguments.values import comma_text, convert, joined, plain_kind, show
from paddlealign.arguments.viewer_names import viewers_of
from paddlealign.errors import UserError

_AS_TEXT = {
    "stop_strings": stop_strings_text,
    **dict.fromkeys(("loss_type", "loss_weights", "ways", "dataset_weights", "data_split", "report_to"), comma_text),
}  # what they make of another JSON value
_RESULT: dict[str, type] = {it.command: it for it in (*get_args(Arguments), PlanArguments)}
# What a command's argument file is called.
_KINDS = {
    "sft": "an SFT",
    "reward": "a reward",
    "dpo": "a DPO",
    "predict": "a prediction",
    "evaluate_rewards": "a scoring",
    "evaluate_perplexity": "a perplexity",
    "evaluate_judge": "a judging",
    "evaluate_compare": "a comparison",
    "export": "an export",
    "plan": "a plan's",
}


class Field(NamedTuple):
    """What a dataclass field says about its values."""

    kind: type
    choices: tuple[str, ...]
    default: Any
    required: bool
    section: str
    help: str


def known_fields(command: str) -> dict[str, Field]:
    """The Field of every key that the command honours, in the order of the sections."""
    found: dict[str, Field] = {}
    for section, cls in SECTIONS[command].items():
        hints = get_type_hints(cls)
        for item in fields(cls):
            required = item.default is item.default_factory  # both MISSING
            choices = tuple(item.metadata.get("choices", ()))
            found[item.name] = Field(plain_kind(hints[item.name]), choices, item.default, required, section, item.metadata["help"])
    return found


@overload
def parse(command: Literal["sft"], argv: Sequence[str], environment: Mapping[str, str] | None = None) -> SftArguments: ...
@overload
def parse(command: Literal["reward"], argv: Sequence[str], environment: Mapping[str, str] | None = None) -> RewardArguments: ...
@overload
def parse(command: Literal["dpo"], argv: Sequence[str], environment: Mapping[str, str] | None = None) -> DpoArguments: ...
@overload
def parse(command: Literal["predict"], argv: Sequence[str], environment: Mapping[str, str] | None = None) -> PredictArguments: ...
@overload
def parse(
    command: Literal["evaluate_rewards"], argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> EvaluateRewardsArguments: ...
@overload
def parse(
    command: Literal["evaluate_perplexity"], argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> EvaluatePerplexityArguments: ...
@overload
def parse(
    command: Literal["evaluate_judge"], argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> EvaluateJudgeArguments: ...
@overload
def parse(
    command: Literal["evaluate_compare"], argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> EvaluateCompareArguments: ...
@overload
def parse(command: Literal["export"], argv: Sequence[str], environment: Mapping[str, str] | None = None) -> ExportArguments: ...
@overload
def parse(command: Literal["plan"], argv: Sequence[str], environment: Mapping[str, str] | None = None) -> PlanArguments: ...


def parse(command: Command, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Arguments | PlanArguments:
    """The arguments of a command from the words after its name: ``[ARGS.json] [--key value ...]``.

    A training command also reads another tool's YAML (``dialects``). The command line wins over the file. environment: for the number of
    processes and a YAML's $NAME; os.environ where None. Nothing on disk is looked at but the argument file (``paths.check_paths`` does
    that) and, for a YAML, what bounds its model's tokens. ``--help`` prints and exits 0. Raises UserError with every problem found.
    """
    text = format_help(command, argv)
    if text is not None:
        print(text, flush=True)  # here, where a closed pipe is caught
        raise SystemExit(0)
    path, from_words = split_command_line(argv, key_kinds(command))
    if path is None and not from_words:
        raise UserError(
            f"{MAIN_SCRIPTS[command]} needs arguments: an argument file, --key value, or both. "
            f"Start from scripts/llama/{command}_argument.json; --help lists the keys."
        )
    variables = os.environ if environment is None else environment
    if path and is_yaml(path) and "training" in SECTIONS[command]:
        aliases = {name: alias.key for name, alias in ALIASES.items() if command in alias.commands}
        reading = read_for_start(path, setting_of(command, read_environment(variables), from_words, aliases, variables))
        result = fill(command, path, list(reading.keys.values()), from_words, variables)
        assert isinstance(result, get_args(TrainArguments))
        return replace(result, told=tuple(reading.lines), notes=(*reading.notes, *result.notes))
    from_file = read_argument_file(path) if path else []
    if not from_file and not from_words:
        raise UserError(f"{path}: there is no key in it. {MAIN_SCRIPTS[command]} --help lists the keys.")
    _refuse_other_commands_file(command, path, from_file)
    return fill(command, path, from_file, from_words, variables)


def fill(
    command: str, path: Path | None, from_file: Sequence[Given], from_words: Sequence[Given], environment: Mapping[str, str]
) -> Arguments | PlanArguments:
    """The arguments of a command from keys that are read: names, values, cross-checks. environment: for the number of processes."""
    known = known_fields(command)
    problems: list[str] = []
    notes: list[str] = []
    merged = _prefer_words_data(_merge(command, from_file, from_words, known, problems, notes), notes)
    values, asked, hinted = _read_values(command, merged, known, problems)
    problems += [f"{key} must be set: {item.help}" for key, item in known.items() if item.required and key not in merged]
    if problems:
        raise UserError(list_problems(problems))
    processes = read_environment(environment)
    degrees, told = settle_degrees(asked, processes, SECTIONS[command])
    notes += hinted + told

    sources = {key: merged[key].source if key in values else "default" for key in known}
    settled = {key: degree for key, degree in degrees._asdict().items() if key in known and values.get(key, known[key].default) != degree}
    values.update(settled)
    sources.update(dict.fromkeys(settled, "derived"))
    sections = dict(zip(SECTIONS[command], parse_sections(command, values), strict=True))
    resolved, found = resolve(command, sections, sources)
    if found.problems:
        raise UserError(list_problems(found.problems))
    sources.update(dict.fromkeys(found.changes, "derived"))
    result: Arguments | PlanArguments = _RESULT[command](
        **resolved, sources=sources, notes=tuple(dict.fromkeys(notes + found.notes)), file=str(path) if path else None
    )
    return result


def key_kinds(command: str) -> dict[str, type]:
    """The type of every key that has one, aliases too, for splitting the command line."""
    known = known_fields(command)
    kinds: dict[str, type] = {key: item.kind for table in (HINTS, ONLY, known) for key, item in table.items()}
    kinds.update(PARALLEL_KEYS)
    meant = {name: alias for name, alias in ALIASES.items() if command in alias.commands and alias.key in kinds}
    kinds.update({name: alias.kind or kinds[alias.key] for name, alias in meant.items()})
    return kinds


def _merge(
    command: str, from_file: Iterable[Given], from_words: Iterable[Given], known: Mapping[str, Field], problems: list[str], notes: list[str]
) -> dict[str, Given]:
    """Canonical key -> what was given for it; the command line over the file. A null takes the key away again."""
    merged: dict[str, Given] = {}
    for level in (from_file, from_words):
        here: dict[str, tuple[str, Given]] = {}
        for given in level:
            alias = ALIASES.get(given.key)
            applies = alias is not None and command in alias.commands and given.key not in known
            key = alias.key if alias is not None and applies else given.key
            if key in here and not _is_empty(here[key][1]):
                if _is_empty(given):
                    continue  # of two names for a key one is left empty
                if here[key][1].value != given.value:
                    problems.append(
                        f"{given.where}: {given.key} and {here[key][0]} are the same key here, with different values. Keep one."
                    )
            here[key] = (given.key, given)
            if alias is not None and applies and given.value is not None:
                notes.append(f"{given.key} is read as {key}{f': {alias.dpo_remark}' if alias.dpo_remark and command == 'dpo' else ''}.")
        merged.update({key: given for key, (_, given) in here.items()})
    return {key: given for key, given in merged.items() if not (_is_empty(given) and _is_known(key, known))}


def _prefer_words_data(merged: Mapping[str, Given], notes: list[str]) -> dict[str, Given]:
    """A data set named on the command line takes the place of the file's data keys, which would win over it otherwise."""
    root = merged.get("dataset_name_or_path")
    if root is None or root.source != "command line":
        return dict(merged)
    replaced = [key for key in ("train_dataset_path", "dev_dataset_path") if key in merged and merged[key].source == "file"]
    if replaced:
        notes.append(f"dataset_name_or_path on the command line takes the place of {' and '.join(replaced)} in the file.")
    return {key: given for key, given in merged.items() if key not in replaced}


def _refuse_other_commands_file(command: str, path: Path | None, from_file: Sequence[Given]) -> None:
    """Raise UserError where a file fits another command by at least three keys more: one line says more than a line a key."""
    names = [ALIASES[given.key].key if given.key in ALIASES else given.key for given in from_file if not _is_empty(given)]
    fits = {name: sum(key in known_fields(name) for key in names) for name in SECTIONS}
    best = [name for name in fits if fits[name] == max(fits.values())]
    best = [name for name in best if all(key in names for key, item in known_fields(name).items() if item.required)] or best
    if fits[best[0]] - fits[command] < 3:
        return
    trains = all("training" in SECTIONS[name] for name in best)
    kind = "a training" if trains and len(best) > 1 else joined([_KINDS[name] for name in best], "or")
    raise UserError(f"{path}: this is {kind} file; start {joined([MAIN_SCRIPTS[name] for name in best], 'or')} with it.")


def _is_empty(given: Given) -> bool:
    return given.value is None or given.value in ("", [])


def _is_known(key: str, known: Mapping[str, Field]) -> bool:
    return key in known or key in ONLY or key in HINTS or key in PARALLEL_KEYS or any(key in known_fields(name) for name in SECTIONS)


def _read_values(
    command: str, merged: Mapping[str, Given], known: Mapping[str, Field], problems: list[str]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Values of the command's own keys, of the parallel keys, and the notes about keys with nothing to do."""
    values: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    told: dict[str, list[str]] = {}
    for key, given in merged.items():
        name = key if given.key == key else f"{given.key} (= {key})"
        try:
            if key in known or key in PARALLEL_KEYS:
                kind, choices = (known[key].kind, known[key].choices) if key in known else (PARALLEL_KEYS[key], ())
                value = _value(key, given, kind, choices)
                problem = range_problem(key, value)
                if problem:
                    raise ValueError(problem)
                if value not in (None, []):
                    values.update({key: value} if key in known else {})
                    asked.update({key: value} if key in PARALLEL_KEYS else {})
            elif key in ONLY:
                _check_only(key, _value(key, given, ONLY[key].kind))
            elif key in HINTS:
                if _value(key, given, HINTS[key].kind) not in (None, *HINTS[key].off):
                    told.setdefault(HINTS[key].why, []).append(key)
            else:
                if isinstance(given.value, dict):
                    raise ValueError("nesting is not allowed: write the keys themselves.")
                raise ValueError(_unknown(command, given.key, known))
        except ValueError as error:
            problems.append(f"{given.where}: {name}: {error}")
    return values, asked, [f"Nothing to do for {', '.join(keys)}: {why}." for why, keys in told.items()]


def _value(key: str, given: Given, kind: type, choices: tuple[str, ...] = ()) -> Any:
    """The given value as its type; first the few spellings that PaddleNLP allows beside it. None unsets the key."""
    value = given.value
    if key == "metric_for_best_model" and isinstance(value, str):
        value = value.removeprefix("eval_")
    elif key == "chat_template" and value in ("None", "none"):
        value = "none"
    elif key == "score_turns" and str(value).lower() in ("true", "false"):  # score_all_turns
        value = "all" if str(value).lower() == "true" else "last"
    elif key in _AS_TEXT and value is not None and not isinstance(value, str):
        value = _AS_TEXT[key](value)
    elif key == "log_level" and value in ("passive", "critical"):  # transformers has these, too
        value = None if value == "passive" else "error"
    elif key == "resume_from_checkpoint" and str(value).lower() in ("true", "auto", "false"):
        value = None if str(value).lower() == "false" else str(value).lower()
    elif key == "sharding" and str(value).lower() in ("true", "false"):
        value = "stage1" if str(value).lower() == "true" else ""
    elif value == "None" and kind is not list:
        value = None
    if value is None:
        return None
    result = convert(value, kind, typed=given.source == "file", choices=choices)
    if key not in PATH_KEYS:
        return (",".join(viewers_of(result)) or "none") if key == "report_to" else result
    return [os.path.expanduser(path) for path in result] if isinstance(result, list) else os.path.expanduser(result)


def _check_only(key: str, value: Any) -> None:
    rule = ONLY[key]
    if value is None or value in rule.allowed or value in ("none", "null", ""):
        return
    allowed = ", ".join(show(item) for item in rule.allowed) or "null"
    raise ValueError(f"{show(value)} is not honoured: {rule.why} (allowed: {allowed}).")


def _unknown(command: str, key: str, known: Mapping[str, Field]) -> str:
    meant = next((name for name in NEAREST.get(key, ()) if name in known), None)
    others = [name for name in SECTIONS if name != command and key in known_fields(name)]
    if others:
        return f"is a key of {joined([MAIN_SCRIPTS[name] for name in others], 'and')}, not of {MAIN_SCRIPTS[command]}. " + (
            f"Did you mean {meant}?" if meant else "Remove it."
        )
    names = [*known, *ALIASES, *ONLY, *HINTS, *PARALLEL_KEYS]
    near = [meant] if meant else difflib.get_close_matches(key.replace("-", "_"), names, n=1)
    return f"unknown key. Did you mean {near[0]}?" if near else f"unknown key. {MAIN_SCRIPTS[command]} --help lists the keys."
