"""A YAML file of another tool: which tool's it is, and its dialect's reading of it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paddlealign.arguments.dialects.dpo_paper import read_dpo_paper
from paddlealign.arguments.dialects.reading import Entry, Reading, Setting
from paddlealign.arguments.dialects.trinity import SECTIONS, read_trinity
from paddlealign.arguments.dialects.verl import ROOT
from paddlealign.arguments.dialects.yaml_text import read_yaml
from paddlealign.arguments.fields import MAIN_SCRIPTS
from paddlealign.arguments.given import Given, list_problems
from paddlealign.arguments.model_files import read_json_object
from paddlealign.errors import UserError

_CONFIG = "trainer.trainer_config_path"
_NO_BOUND = 10**9  # a tokenizer without a limit writes 1e30


def is_yaml(path: Path | None) -> bool:
    """Whether a file's name says that it is YAML."""
    return path is not None and path.suffix.lower() in (".yaml", ".yml")


def setting_of(
    command: str | None, processes: int | None, words: Sequence[Given], aliases: Mapping[str, str], environment: Mapping[str, str]
) -> Setting:
    """The Setting of a run whose command line is ``words``. aliases: other names of our keys -> the keys."""
    given = {aliases.get(it.key, it.key): it.value for it in words if it.value is not None}
    return Setting(command, processes, given, environment, positions_of)


def read_yaml_configuration(path: Path, setting: Setting) -> Reading:
    """The reading of a YAML file. Raises UserError where it is none of a tool that is known."""
    entries = read_yaml(path, SECTIONS)
    if "exp_name" in entries or "loss.name" in entries:
        return read_dpo_paper(entries, setting)
    if not any(key.split(".")[0] in SECTIONS or key == "mode" for key in entries):
        raise UserError(
            f"{path}: this is no configuration that is known. Of YAML files those of Trinity-RFT are read (mode, algorithm, model, buffer, "
            "...), and the config.yaml of the DPO paper's code. Argument files of PaddleAlign are JSON."
        )
    return read_trinity(_with_trainer_config(path, entries, setting), setting)


def read_for_start(path: Path, setting: Setting) -> Reading:
    """The reading for the command and the processes of a start. Raises UserError with every problem of the file."""
    reading = read_yaml_configuration(path, setting)
    if reading.command and reading.command != setting.command:
        raise UserError(f"{path}: this is a configuration for another method; start {MAIN_SCRIPTS[reading.command]} with it.")
    if reading.problems:
        raise UserError(list_problems(reading.problems))
    asked = reading.machines * (reading.devices or reading.started)
    if asked != reading.started:
        start = launch_command(MAIN_SCRIPTS[reading.command], str(path), reading.machines, reading.devices or 1)
        reading.notes.append(f"{path} asks for {asked} processes, and {reading.started} started. The launch command for all: {start}")
    return reading


def _with_trainer_config(path: Path, entries: dict[str, Entry], setting: Setting) -> dict[str, Entry]:
    """The entries, and those of the file that trainer.trainer_config_path names under trainer.trainer_config."""
    reading = Reading("", entries, setting)
    name = reading.get(_CONFIG)
    if reading.problems:
        raise UserError(reading.problems[0])
    rest = {key: entry for key, entry in entries.items() if key != _CONFIG}
    if not name:
        return rest
    where = reading.where(_CONFIG)
    if not isinstance(name, str):
        raise UserError(f"{where}: the path of a file is needed.")
    if any(key.startswith(ROOT) and entry.value is not None for key, entry in rest.items()):
        raise UserError(f"{where}: trainer.trainer_config stands there as well. Keep one of them.")
    file = next((place for place in (Path(name), path.parent / name) if place.is_file()), None)
    if file is None:
        raise UserError(
            f"{where}: there is no file {name}, neither where the command runs nor beside {path}. Put in its path; or take the line "
            "out, and set learning_rate and its like on the command line."
        )
    loaded = read_yaml(file, {})

    def below(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return re.sub(r"\$\{([\w.]+)\}", lambda match: f"${{{ROOT}.{match[1]}}}" if match[1] in loaded else match[0], value)

    return {**rest, **{f"{ROOT}.{key}": Entry(below(entry.value), entry.where) for key, entry in loaded.items()}}


def positions_of(folder: str) -> int | None:
    """The most tokens that a model takes by its config.json and tokenizer_config.json; None where neither says it."""
    found = []
    for name, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        try:
            value = read_json_object(Path(folder) / name).get(key)
        except UserError:  # told when the model is read
            continue
        if isinstance(value, int) and not isinstance(value, bool) and 1 < value < _NO_BOUND:
            found.append(value)
    return min(found, default=None)


def launch_command(script: str, file: str, machines: int, devices: int) -> str:
    """How a run is started on so many machines with so many devices each."""
    if machines * devices == 1:
        return f"python {script} {file}"
    several = f"--nnodes {machines} --master ADDRESS:PORT --rank 0 (1 to {machines - 1} on the others) " if machines > 1 else ""
    return f"python -u -m paddle.distributed.launch {several}--gpus {','.join(map(str, range(devices)))} {script} {file}"
