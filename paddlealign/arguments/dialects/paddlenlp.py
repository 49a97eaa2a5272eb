"""PaddleNLP's JSON files, old and new: the keys that are ours by another name, and those with nothing to do here."""

from collections.abc import Sequence

from paddlealign.arguments.degrees import PARALLEL_KEYS
from paddlealign.arguments.dialects.reading import Entry, Reading, Setting
from paddlealign.arguments.foreign import ALIASES, HINTS, ONLY
from paddlealign.arguments.given import Given
from paddlealign.arguments.parsing import known_fields

NAME = "PaddleNLP"
_ONLY_IN_DPO = {"beta", "loss_type", "label_smoothing", "ref_model_name_or_path", "simpo_gamma", "pref_loss_ratio", "sft_loss_ratio"}


def read_paddlenlp(given: Sequence[Given], setting: Setting) -> Reading:
    """Our keys for a PaddleNLP file. Values stay as they are; what they may be is checked with all others."""
    reading = Reading(NAME, {it.key: Entry(it.value, it.where) for it in given}, setting)
    command = setting.command or _command_of({it.key for it in given})
    if command is None:
        reading.problems.append("the file does not say what it trains. Add --command sft, --command reward or --command dpo.")
        return reading
    reading.command = command
    known = known_fields(command)
    for it in given:
        alias = ALIASES.get(it.key)
        ours = alias.key if alias is not None and command in alias.commands and it.key not in known else it.key
        other = reading.keys.get(ours)
        if it.value is None or it.value == "":
            reading.ignore(it.key, "empty: the default stands")
        elif other is not None and other.value != it.value:
            told = f"{it.key} and {reading.taken.get(ours, ours)} are the same key here, with different values. Keep one."
            reading.problems.append(f"{it.where}: {told}")
        elif ours in known or ours in PARALLEL_KEYS:
            reading.take(it.key, ours, it.value, alias.dpo_remark if alias is not None and ours != it.key and command == "dpo" else "")
        elif ours in HINTS:
            reading.ignore(it.key, HINTS[ours].why)
        elif ours in ONLY and it.value in ONLY[ours].allowed:
            reading.ignore(it.key, "asks for nothing")
        else:
            reading.keys[it.key] = it  # refused with all others, by the same words as in a start with this file
    return reading


def _command_of(names: set[str]) -> str | None:
    """The command whose keys these are, or None where several have all of them."""
    plain = {ALIASES[name].key if name in ALIASES else name for name in names}
    if plain & _ONLY_IN_DPO:
        return "dpo"
    if "center_rewards_coefficient" in plain:
        return "reward"
    return "sft" if plain & {"dataset_name_or_path", "eval_with_do_generation"} else None
