"""``python -m paddlealign.convert``: another tool's file or command line, read by its dialect, as the keys of one of our commands."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from paddlealign.arguments.command_line import split_command_line
from paddlealign.arguments.dialects import deepspeed_chat, dpo_paper
from paddlealign.arguments.dialects.files import is_yaml, launch_command, read_yaml_configuration, setting_of
from paddlealign.arguments.dialects.paddlenlp import read_paddlenlp
from paddlealign.arguments.dialects.reading import Entry, Reading, Setting
from paddlealign.arguments.dialects.shell_script import after_script, read_script
from paddlealign.arguments.fields import MAIN_SCRIPTS, SECTIONS
from paddlealign.arguments.foreign import ALIASES
from paddlealign.arguments.given import Given, list_problems
from paddlealign.arguments.json_file import read_argument_file
from paddlealign.arguments.parsing import fill, key_kinds, known_fields
from paddlealign.arguments.results import Told, TrainArguments
from paddlealign.arguments.values import joined
from paddlealign.errors import UserError

FORMATS = ("trinity", "dpo-paper", "deepspeed-chat", "paddlenlp")
USAGE = (
    "usage: python -m paddlealign.convert FILE_OR_FLAGS [-o ARGS.json] [--from FORMAT] [--command sft|reward|dpo] [--processes N]\n"
    "                                     [--key value ...]\n\n"
    "FILE_OR_FLAGS is Trinity-RFT's YAML, a JSON of PaddleNLP, a start script (.sh), or the command line of the DPO paper's code\n"
    "(key=value ...) or of DeepSpeed-Chat (--key value ...). What each key becomes is shown; -o writes our argument file. --key value are\n"
    f"keys of PaddleAlign, which win. FORMAT is known by itself, or one of {', '.join(FORMATS)}.\n"
    "--processes: how many will be started, where a batch is counted over all of them."
)
_OWN = {"-o": "output", "--output": "output", "--from": "from", "--command": "command", "--processes": "processes"}


@dataclass(frozen=True)
class Conversion:
    """What became of a configuration.

    source: the tool's name. keys: our argument file. told: a line for each of their keys. notes: lines to show once. launch: how it is
    started. output: where the file is to be written, or None.
    """

    source: str
    command: str
    keys: dict[str, Any]
    told: tuple[Told, ...]
    notes: tuple[str, ...]
    launch: str
    output: Path | None


def convert(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Conversion:
    """Read the words of the command line (``USAGE``). Nothing is written. Raises UserError with every problem found."""
    variables = os.environ if environment is None else environment
    own, words = _own_options(argv)
    reading, ours = _read(words, own, variables)
    if reading.problems:
        raise UserError(list_problems(reading.problems))
    arguments = fill(reading.command, None, list(reading.keys.values()), ours, {"PADDLE_TRAINERS_NUM": str(reading.started)})
    assert isinstance(arguments, get_args(TrainArguments))
    values = {key: value for section in SECTIONS[reading.command] for key, value in asdict(getattr(arguments, section)).items()}
    keys = {key: value for key, value in values.items() if arguments.sources[key] in ("file", "command line")}
    script, file = MAIN_SCRIPTS[reading.command], own.get("output", "ARGS.json")
    devices = reading.devices if reading.setting.processes is None else reading.started
    machines = reading.machines if reading.setting.processes is None else 1
    launch = launch_command(script, file, machines, devices or 1)
    output = Path(own["output"]) if "output" in own else None
    notes = (*reading.notes, *arguments.notes)
    return Conversion(reading.dialect, reading.command, keys, tuple(reading.lines), notes, launch, output)


def _own_options(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Convert's own options, wherever they stand, and the other words."""
    own: dict[str, str] = {}
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name not in _OWN:
            rest.append(word)
            continue
        if not equals and not words:
            raise UserError(f"command line: {name} needs a value after it.\n{USAGE}")
        own[_OWN[name]] = value if equals else words.pop(0)
    for option, allowed in (("from", FORMATS), ("command", ("sft", "reward", "dpo"))):
        if own.get(option) not in (None, *allowed):
            raise UserError(f"command line: --{option} {own[option]} is not known; allowed: {joined(allowed, 'or')}.")
    if "processes" in own and not (own["processes"].isdigit() and int(own["processes"]) > 0):
        raise UserError(f"command line: --processes {own['processes']} is not allowed; a whole number above 0 is needed.")
    if not rest:
        raise UserError(f"a file or flags of another tool are needed.\n{USAGE}")
    return own, rest


def _read(words: list[str], own: Mapping[str, str], environment: Mapping[str, str]) -> tuple[Reading, list[Given]]:
    """The dialect's reading, and our own keys on the command line."""
    command, source = own.get("command"), own.get("from")
    processes = int(own["processes"]) if "processes" in own else None
    first = Path(words[0])
    script = ""
    if first.suffix == ".sh":
        script, words = str(first.resolve()), [*read_script(first, environment), *words[1:]]
    elif is_yaml(first) or first.suffix == ".json":
        ours = _our_words(words[1:], command)
        setting = _setting(command, processes, ours, environment)
        if is_yaml(first):
            reading = read_yaml_configuration(first, setting)
        else:
            reading = read_paddlenlp(read_argument_file(first), setting)
        return _of_kind(reading, source), ours
    else:
        script = next((word for word in words if word.endswith(".py")), "")
        words = after_script(words)
    if source == "deepspeed-chat" or not any(_is_hydra(word) for word in words):
        reading, ours = _read_flags(words, command, processes, script, environment)
        return _of_kind(reading, source), ours
    theirs = [word for word in words if _is_hydra(word)]
    ours = _our_words([word for word in words if not _is_hydra(word)], command)
    reading = dpo_paper.read_dpo_paper(dpo_paper.words_as_entries(theirs), _setting(command, processes, ours, environment))
    return _of_kind(reading, source), ours


def _is_hydra(word: str) -> bool:
    return not word.startswith("-") and "=" in word


def _read_flags(
    words: Sequence[str], command: str | None, processes: int | None, script: str, environment: Mapping[str, str]
) -> tuple[Reading, list[Given]]:
    """DeepSpeed-Chat's flags; those that it does not have and we do are ours."""
    entries = deepspeed_chat.flags_as_entries(words)
    command = command or deepspeed_chat.stage_of(entries, script)
    known = {*known_fields(command or "sft"), *ALIASES}
    theirs = {key: entry for key, entry in entries.items() if key in deepspeed_chat.KEYS or key not in known}
    ours = _our_words([word for key, entry in entries.items() if key not in theirs for word in _as_words(key, entry)], command)
    return deepspeed_chat.read_deepspeed_chat(theirs, _setting(command, processes, ours, environment)), ours


def _as_words(key: str, entry: Entry) -> list[str]:
    if entry.value is None:
        return [f"--{key}=null"]
    return [f"--{key}={str(entry.value).lower() if isinstance(entry.value, bool) else entry.value}"]


def _our_words(words: Sequence[str], command: str | None) -> list[Given]:
    file, given = split_command_line(words, key_kinds(command) if command else {**key_kinds("sft"), **key_kinds("dpo")})
    if file is not None:
        raise UserError(f"command line: unexpected {file}: one file is read, and our keys are written --key value.")
    return given


def _setting(command: str | None, processes: int | None, ours: Sequence[Given], environment: Mapping[str, str]) -> Setting:
    return setting_of(command, processes, ours, {name: alias.key for name, alias in ALIASES.items()}, environment)


def _of_kind(reading: Reading, source: str | None) -> Reading:
    """Raise UserError where --from or --command names another than the one that this configuration is for."""
    asked = reading.setting.command
    if asked and reading.command and asked != reading.command:
        raise UserError(f"command line: --command {asked}, but this is a configuration for {reading.command}.")
    names = {"trinity": "Trinity-RFT", "dpo-paper": dpo_paper.NAME, "deepspeed-chat": deepspeed_chat.NAME, "paddlenlp": "PaddleNLP"}
    if source and names[source] != reading.dialect:
        raise UserError(f"command line: --from {source}, but this is a configuration of {reading.dialect}.")
    return reading
