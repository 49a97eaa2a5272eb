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
        if it.value is None or it.value == "":
            reading.ignore(it.key, "empty: the default stands")
        elif it.key in known or it.key in PARALLEL_KEYS:
            reading.take(it.key, it.key, it.value)
        elif alias is not None and command in alias.commands:
            reading.take(it.key, alias.key, it.value, alias.dpo_remark if command == "dpo" else "")
        elif it.key in HINTS:
            reading.ignore(it.key, HINTS[it.key].why)
        elif it.key in ONLY and it.value in ONLY[it.key].allowed:
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
