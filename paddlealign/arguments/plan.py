"""The arguments of ``python -m paddlealign.plan``: a training command's, read as that command reads them, and the plan's own."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from paddlealign.arguments.command_line import split_command_line
from paddlealign.arguments.degrees import PARALLEL_KEYS, Degrees, settle_degrees
from paddlealign.arguments.fields import MAIN_SCRIPTS, SECTIONS
from paddlealign.arguments.foreign import ALIASES
from paddlealign.arguments.given import Given
from paddlealign.arguments.json_file import read_argument_file
from paddlealign.arguments.objective_fields import ObjectiveArguments
from paddlealign.arguments.parsing import known_fields, parse
from paddlealign.arguments.plan_fields import PlanFields
from paddlealign.arguments.results import TrainArguments
from paddlealign.arguments.reward_fields import RewardObjectiveArguments
from paddlealign.arguments.values import convert
from paddlealign.errors import UserError


@dataclass(frozen=True)
class Planned:
    """All that a plan was told.

    training: the planned run's arguments, as in one process. plan: the devices. degrees: the layout that was set, or what the devices would
    be without one: data parallel. searches: whether the best layouts are to be found. notes: lines to show the user once.
    """

    training: TrainArguments
    plan: PlanFields
    degrees: Degrees
    searches: bool
    notes: tuple[str, ...]
    command: Literal["plan"] = "plan"


def parse_plan(argv: Sequence[str]) -> Planned:
    """Read ``[ARGS.json] [--key value ...]``. The file is a training command's; the plan's own keys stand on the command line.

    Raises UserError with every problem of the plan's keys, or else with those of the training command's.
    """
    own, training_keys = known_fields("plan"), {**known_fields("sft"), **known_fields("reward"), **known_fields("dpo")}
    if any(word in ("-h", "--help") for word in argv):
        parse("plan", ["--help"])  # prints and exits
    kinds = {key: item.kind for key, item in {**training_keys, **own}.items()} | PARALLEL_KEYS
    path, words = split_command_line(argv, kinds)
    if path is None and not words:
        raise UserError(f"{MAIN_SCRIPTS['plan']} needs a training argument file and --devices; --help lists the other keys.")
    from_file = read_argument_file(path) if path else []
    _refuse_near_misses(words, own, {*training_keys, *PARALLEL_KEYS, *ALIASES})
    given = {ALIASES[it.key].key if it.key in ALIASES else it.key: it for it in (*from_file, *words)}
    rest = [*([str(path)] if path else []), *(word for it in words if it.key not in own for word in _as_words(it))]
    problems = []
    try:
        plan = parse("plan", [word for it in words if it.key in own for word in _as_words(it)] or ["--devices=null"], {}).plan
    except UserError as error:
        problems.append(str(error))
    try:
        training = parse(_method(given), rest, {})
    except UserError as error:
        problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    asked = {
        key: convert(it.value, PARALLEL_KEYS[key], typed=it.source == "file")
        for key, it in given.items()
        if key in PARALLEL_KEYS and it.value not in (None, "")
    }
    degrees, notes = settle_degrees(asked, plan.devices, SECTIONS["sft"])
    idle = {int: (-1, 0, 1), bool: (False,), str: ("",)}
    chosen = any(value not in idle[PARALLEL_KEYS[key]] for key, value in asked.items())
    told = notes if chosen else []
    if training.command == "sft" and ("method" not in given or given["method"].value in (None, "", "auto")):
        told = [*told, "planned as SFT, since no key of another objective is set; --method dpo or --method reward plans these."]
    if training.adapter.lora:
        told = [*told, "lora: a plan counts the training of all weights; an adapter needs less."]
    return Planned(training, plan, degrees, plan.search or not chosen, tuple(told))


def _method(given: Mapping[str, Given]) -> Literal["sft", "reward", "dpo"]:
    """What ``method`` says, or else the command that has a key which is there in its objective."""
    told = given["method"].value if "method" in given else "auto"

    def is_meant(method: str, objective: type) -> bool:
        return told == method or (told == "auto" and any(item.name in given for item in fields(objective)))

    if is_meant("dpo", ObjectiveArguments):
        return "dpo"
    return "reward" if is_meant("reward", RewardObjectiveArguments) else "sft"


def _refuse_near_misses(words: Sequence[Given], own: Collection[str], others: Collection[str]) -> None:
    """Raise UserError for a word that is nearly a key of the plan; the training command would propose its own keys."""
    for it in words:
        near = difflib.get_close_matches(it.key, own, n=1, cutoff=0.75)
        if near and it.key not in own and it.key not in others:
            raise UserError(f"{it.where}: {it.key}: unknown key. Did you mean {near[0]}?")


def _as_words(given: Given) -> list[str]:
    """A key as it stood on the command line."""
    if given.value is True:
        return [f"--{given.key}"]
    if isinstance(given.value, list):
        return [f"--{given.key}", *given.value]
    return [f"--{given.key}={'null' if given.value is None else given.value}"]
