"""The ways of decoding that evaluate.py compare goes through: each what predict.py would be told. Pure functions of ComparisonArguments."""

from dataclasses import fields
from typing import Any, NamedTuple

from paddlealign.arguments.comparison_fields import ComparisonArguments
from paddlealign.arguments.decoding import COMMON_KEYS, STRATEGY_KEYS, decoding_problems
from paddlealign.arguments.generation_fields import GenerationArguments
from paddlealign.arguments.ranges import range_problem
from paddlealign.arguments.values import convert, plain_kind, show

_GROUPS = ("num_beam_groups", "diversity_rate")
# name -> the decode_strategy of predict.py, and the keys that it reads beside COMMON_KEYS.
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "greedy_search": ("greedy_search", STRATEGY_KEYS["greedy_search"]),
    "sampling": ("sampling", STRATEGY_KEYS["sampling"]),
    "beam_search": ("beam_search", tuple(key for key in STRATEGY_KEYS["beam_search"] if key not in _GROUPS)),
    "group_beam": ("beam_search", STRATEGY_KEYS["beam_search"]),
    "contrastive_search": ("contrastive_search", STRATEGY_KEYS["contrastive_search"]),
}
# A way's own values stand between blanks and commas, where no text has room; and both models see the same prompt.
_NOT_OWN = ("stop_strings", "src_length")


class Way(NamedTuple):
    """A way of decoding. label: as the user wrote it. generation: what predict.py would be told."""

    label: str
    generation: GenerationArguments


def split_ways(comparison: ComparisonArguments) -> list[Way]:
    """The ways in their order. Raises ValueError whose text goes on from "ways: "."""
    ways = [_way(text.split(), comparison) for text in comparison.ways.split(",") if text.strip()]
    labels = [way.label for way in ways]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        raise ValueError(f"{twice} stands there twice. Keep one, or give one of them other values.")
    if not ways:
        raise ValueError(f"{show(comparison.ways)} names no way; allowed: {', '.join(WAYS)}.")
    return ways


def _way(words: list[str], comparison: ComparisonArguments) -> Way:
    name, *own = words
    if name not in WAYS:
        raise ValueError(f"{show(name)} is not allowed; allowed: {', '.join(WAYS)}.")
    strategy, read = WAYS[name]
    values = {key: getattr(comparison, key) for key in (*COMMON_KEYS, *read)}
    for word in own:
        key, equals, text = word.partition("=")
        allowed = [key for key in (*read, *COMMON_KEYS) if key not in _NOT_OWN]
        if not equals or key not in allowed:
            raise ValueError(f"{name}: {show(word)} is not allowed; allowed behind it: key=value with {', '.join(allowed)}.")
        values[key] = _own_value(name, key, text)
    shared = {key: getattr(comparison, key) for key in ("data_file", "batch_size", "chat_template", "device", "dtype")}
    return Way(" ".join(words), GenerationArguments(**values, **shared, decode_strategy=strategy))


def _own_value(name: str, key: str, text: str) -> Any:
    kind = plain_kind(next(item.type for item in fields(GenerationArguments) if item.name == key))
    try:
        value = convert(text, kind, typed=False)
    except ValueError as error:
        raise ValueError(f"{name}: {key}: {error}") from None
    problem = range_problem(key, value)
    if problem:
        raise ValueError(f"{name}: {key}: {problem}")
    return value


def comparison_problems(comparison: ComparisonArguments) -> list[str]:
    """What each way asks for that cannot be together."""
    try:
        ways = split_ways(comparison)
    except ValueError as error:
        return [f"ways: {error}"]
    problems = [f"ways: {way.label}: {problem}" for way in ways for problem in decoding_problems(way.generation)]
    for way in ways:
        groups = way.generation.num_beam_groups
        if way.label.startswith("group_beam") and groups < 2:
            problems.append(f"ways: {way.label}: num_beam_groups {groups}: group_beam needs 2 or more. Raise it, or take beam_search.")
    return problems


def unread_comparison_keys(comparison: ComparisonArguments) -> list[tuple[str, str]]:
    """The keys that none of the ways looks at, each with the reason."""
    read = {key for way in split_ways(comparison) for key in WAYS[way.label.split()[0]][1]}
    every = dict.fromkeys(key for _, keys in WAYS.values() for key in keys)
    return [(key, f"ways are {comparison.ways}") for key in every if key not in read]
