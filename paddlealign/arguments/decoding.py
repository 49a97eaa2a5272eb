"""Which generation keys go together: what each way of generating reads, needs and cannot have. Pure functions of GenerationArguments."""

import json
from dataclasses import fields
from typing import Any

from paddlealign.arguments.generation_fields import GenerationArguments
from paddlealign.arguments.values import show

_DRAWING = ("temperature", "top_k", "top_p", "seed")
_BEAMS = ("num_beams", "num_beam_groups", "diversity_rate", "length_penalty", "early_stopping")
# What each decode_strategy reads beside the keys that all read.
STRATEGY_KEYS: dict[str, tuple[str, ...]] = {
    "sampling": (*_DRAWING, "num_return_sequences"),
    "greedy_search": (),
    "beam_search": (*_BEAMS, "num_return_sequences"),
    "contrastive_search": ("penalty_alpha", "top_k"),
}


# What only a file of rows has.
_ROW_KEYS = (
    "data_file", "output_file", "batch_size", "prompt_key", "messages_key", "system_prompt_key", "system_prompt", "on_bad_row",
)  # fmt: skip
# What every way of generating reads.
COMMON_KEYS = ("src_length", "max_length", "min_length", "repetition_penalty", "no_repeat_ngram_size", "stop_strings")


def stop_strings_text(value: Any) -> str:
    """stop_strings as one text, from a JSON file's list of them, for the commas and spaces in it. ValueError for another type."""
    if not isinstance(value, list):
        raise ValueError(f"{show(value)} is not allowed; a text or a list of texts is needed.")
    return json.dumps(value, ensure_ascii=False)


def split_stop_strings(text: str | None) -> tuple[str, ...]:
    """The texts that end an answer: a JSON list of texts, or one text as it stands. ValueError for a [ that begins no list of texts."""
    try:
        value = json.loads(text) if text and text.lstrip().startswith("[") else text
    except ValueError:
        itself = json.dumps([text], ensure_ascii=False)
        raise ValueError(f"{show(text)} begins with [ and is no JSON list. Mend the list; for this very text write {itself}.") from None
    items = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(item, str) and item for item in items):
        raise ValueError(f"{show(text)} is not allowed; a JSON list of texts is needed, none of them empty.")
    return tuple(dict.fromkeys(items))


def text_keys(generation: GenerationArguments) -> tuple[str, ...]:
    """The keys on which the generated text depends, beside model, tokenizer and template."""
    return ("decode_strategy", *COMMON_KEYS, *STRATEGY_KEYS[generation.decode_strategy])


def unread_decoding_keys(generation: GenerationArguments) -> list[tuple[str, str]]:
    """The keys that the decode_strategy, or interactive, does not look at, each with the reason."""
    read = STRATEGY_KEYS[generation.decode_strategy]
    every = dict.fromkeys(key for keys in STRATEGY_KEYS.values() for key in keys)
    unread = [(key, f"decode_strategy is {generation.decode_strategy}") for key in every if key not in read]
    return unread + [(key, "interactive is true") for key in _ROW_KEYS if generation.interactive]


def decoding_problems(generation: GenerationArguments) -> list[str]:
    """What the keys ask for that cannot be together, each with the values and the way out."""
    problems = []
    strategy, answers = generation.decode_strategy, generation.num_return_sequences
    if generation.min_length > generation.max_length:
        problems.append(f"min_length {generation.min_length} is more than max_length {generation.max_length}. Lower it.")
    try:
        split_stop_strings(generation.stop_strings)
    except ValueError as error:
        problems.append(f"stop_strings: {error}")
    if generation.interactive and answers > 1:
        problems.append(f"num_return_sequences {answers} with interactive: a chat goes on from one answer. Set it to 1.")
    if generation.interactive and generation.stop_strings:
        problems.append("stop_strings with interactive: an answer is shown as it comes and cannot be cut behind its end. Unset it.")
    if answers > 1 and strategy in ("greedy_search", "contrastive_search"):
        problems.append(
            f"num_return_sequences {answers}: {strategy} finds one answer. Set it to 1, or decode_strategy to sampling or beam_search."
        )
    if strategy == "beam_search":
        problems += _beam_problems(generation)
    elif generation.num_beams > 1:
        why = "drawing among beams is not in this version" if strategy == "sampling" else "it follows one text"
        problems.append(f"num_beams {generation.num_beams} with decode_strategy {strategy}: {why}. Set decode_strategy to beam_search.")
    if strategy == "contrastive_search" and generation.top_k < 2:
        problems.append(f"top_k {generation.top_k}: contrastive_search chooses among top_k tokens. Set it to 2 or more; 4 is usual.")
    return problems


def _beam_problems(generation: GenerationArguments) -> list[str]:
    problems = []
    beams, groups, answers = generation.num_beams, generation.num_beam_groups, generation.num_return_sequences
    if beams < 2:
        problems.append(f"num_beams {beams}: beam_search needs 2 or more. Raise it, or take greedy_search.")
    elif answers > beams:
        problems.append(f"num_return_sequences {answers} is more than num_beams {beams}. Lower it, or raise num_beams.")
    if beams > 1 and beams % groups:
        problems.append(f"num_beams {beams} is not a multiple of num_beam_groups {groups}. Change one of them.")
    if groups > 1 and generation.diversity_rate == 0:
        problems.append(f"num_beam_groups {groups} with diversity_rate 0: all groups would find the same. Set diversity_rate above 0.")
    if groups == 1 and generation.diversity_rate > 0:
        problems.append(f"diversity_rate {generation.diversity_rate:g} works between groups. Set num_beam_groups to 2 or more.")
    drawing = [item for item in fields(generation) if item.name in ("temperature", "top_k", "top_p")]
    asked = [item.name for item in drawing if getattr(generation, item.name) != item.default]
    if asked:
        names = " and ".join(asked)
        problems.append(f"{names} with beam_search: drawing among beams is not in this version. Unset, or set decode_strategy to sampling.")
    return problems
