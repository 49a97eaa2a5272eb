"""Rows to records: what each kind of row may look like, and plain words for the rows that do not.

A row that is malformed stops the run: a typing mistake in a data file must not silently cost rows. A row that is well formed but
cannot teach anything (chosen equals rejected, equal sort) is refused and counted, since such rows are common in collected data.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paddlealign.data.example import Message, Record
from paddlealign.data.message_rows import BadRowError, read_messages, read_text, read_texts, read_tools, shown, type_of
from paddlealign.data.sources import read_source
from paddlealign.errors import UserError

SHOWN_PROBLEMS = 5
ASKING = ("user", "tool")  # the roles after which a model answers
ROW_FORMS = {
    "sft": '{"src", "tgt"} (texts, or lists of turns) or {"messages": [{"role", "content"}, ...]}; "tools": [...] beside them',
    "preference": '{"prompt", "chosen", "rejected"} (texts or messages) or {"src", "tgt", "response": [a, b], "sort": [1, 0]}',
    "labelled": '{"prompt", "completion", "label": true or false}, {"src", "tgt", "response": [a], "sort": [1 or 0]}, or a pair',
    "prompt": '{"src"}, {"prompt"} or {"messages": [{"role", "content"}, ...]}',
}


@dataclass(frozen=True)
class ReadReport:
    """What was read. ``rows`` counts rows of the files, ``records`` what became of them (a row with n answer pairs gives n).

    refused: reason -> number of pairs that were left out. warnings: one line each, for the user.
    """

    files: int
    rows: int
    records: int
    refused: dict[str, int]
    warnings: tuple[str, ...]


def read_records(paths: Sequence[Path], kind: str) -> tuple[list[Record], ReadReport]:
    """Read the rows of some files as records of a kind: "sft", "preference", "labelled" or "prompt".

    Raises UserError with the first bad rows by file and line, and their number, if there is any.
    """
    pairs, report = read_rows(paths, kind)
    return [record for _, record in pairs], report


def read_rows(paths: Sequence[Path], kind: str) -> tuple[list[tuple[dict[str, Any], Record]], ReadReport]:
    """As ``read_records``, with the row as it stood in the file beside each record (predict writes it back)."""
    if not paths:
        raise UserError("No data file was given. Set dataset_name_or_path to a data file or a folder that holds train.json.")
    parsers = {"sft": _sft_records, "preference": _preference_records, "labelled": _labelled_records, "prompt": _prompt_records}
    parse = parsers[kind]
    result: list[tuple[dict[str, Any], Record]] = []
    problems: list[str] = []
    refused: Counter[str] = Counter()
    notes: list[str] = []
    rows = 0
    for path in paths:
        source = read_source(Path(path))
        problems += source.problems
        if source.literal_rows:
            notes.append(f"{path}: {source.literal_rows} rows are Python literals in single quotes, not JSON; read as they are meant.")
        for line, row in source.rows:
            rows += 1
            where = f"{path}:{line}"
            try:
                records, reasons = _checked(row, where, parse)
            except BadRowError as error:
                problems.append(f"{where}: {error}{_other_command(row, kind)}")
                continue
            refused.update(reasons)
            result += [(row, record) for record in records]
    _raise_problems(problems, rows, kind)
    if not result:
        why = "; ".join(f"{count} x {reason}" for reason, count in refused.items()) or "there are none"
        raise UserError(f"{paths[0]}: no usable row ({why}). Allowed: {ROW_FORMS[kind]}.")
    return result, ReadReport(len(paths), rows, len(result), dict(refused), tuple(notes))


def _raise_problems(problems: list[str], rows: int, kind: str) -> None:
    if not problems:
        return
    first = "\n  ".join(problems[:SHOWN_PROBLEMS])
    more = f"\n  ... and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
    noun = "row is" if len(problems) == 1 else "rows are"
    raise UserError(
        f"{len(problems)} data {noun} wrong (of {max(rows, len(problems))}):\n  {first}{more}\n"
        f"Allowed rows: {ROW_FORMS[kind]}. Mend or remove them; none is skipped silently."
    )


_Parsed = tuple[list[Record], list[str]]


def _checked(row: object, where: str, parse: Callable[[dict[str, Any], str], _Parsed]) -> _Parsed:
    if not isinstance(row, dict):
        raise BadRowError(f"found a {type_of(row)}, a row is a JSON object.")
    records, reasons = parse(row, where)
    tools = read_tools(row.get("tools"))
    return [replace(record, tools=tools) for record in records], reasons


def _sft_records(row: dict[str, Any], where: str) -> _Parsed:
    """{messages}, or {src, tgt}: one record."""
    if "messages" in row:
        messages = _with_system(row, read_messages(row["messages"], "messages"), "messages")
        if messages[-1].role != "assistant":
            raise BadRowError(f'the last message has role "{messages[-1].role}"; in an SFT row it must be "assistant".')
        return [Record(messages[:-1], (_answer(messages[-1]),), True, where)], []
    _need(row, ("src", "tgt"))
    sources, targets = read_texts(row["src"], "src", may_be_empty=True), read_texts(row["tgt"], "tgt")
    if len(sources) != len(targets):
        raise BadRowError(f"src has {len(sources)} turns and tgt has {len(targets)}; they must be as many.")
    turns = _interleave(sources, targets[:-1])
    if len(sources) == 1 and not sources[0]:
        turns = ()  # no prompt: the response is the whole text
    return [Record(_system(row) + turns, (targets[-1],), len(targets) > 1, where)], []


def _preference_records(row: dict[str, Any], where: str) -> _Parsed:
    """{prompt, chosen, rejected} with texts or messages, n paired answers: n records; {src, tgt, response, sort}: one."""
    if "response" in row or "sort" in row:
        return _sorted_record(row, where)
    _need(row, ("chosen", "rejected"))
    if any(isinstance(row[key], list) and any(isinstance(item, dict) for item in row[key]) for key in ("chosen", "rejected")):
        return _message_pair(row, where)
    _need(row, ("prompt",))
    messages = _prompt_messages(row, "prompt")
    chosen, rejected = read_texts(row["chosen"], "chosen"), read_texts(row["rejected"], "rejected")
    if len(chosen) != len(rejected):
        raise BadRowError(f"{len(chosen)} chosen and {len(rejected)} rejected answers; they are paired in order and must be as many.")
    records = [Record(messages, pair, False, where) for pair in zip(chosen, rejected, strict=True) if pair[0] != pair[1]]
    return records, ["chosen equals rejected"] * (len(chosen) - len(records))


def _message_pair(row: dict[str, Any], where: str) -> _Parsed:
    """Answers as messages: the last of each is the answer; what stands before it is the prompt, alike in both."""
    chosen, rejected = read_messages(row["chosen"], "chosen"), read_messages(row["rejected"], "rejected")
    for key, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages[-1].role != "assistant":
            raise BadRowError(f'the last message of {key} has role "{messages[-1].role}"; it must be "assistant", the answer.')
    before = chosen[:-1]
    if before != rejected[:-1]:
        raise BadRowError("chosen and rejected differ before their last message; the turns in front of the two answers must be the same.")
    given = _prompt_messages(row, "prompt") if row.get("prompt") else ()
    if not before and not given:
        raise BadRowError("there is no prompt: neither the key prompt nor turns in front of the answers.")
    prompt = _with_system(row, before, "chosen") if before else given
    if prompt[-1].role not in ASKING:
        raise BadRowError(f'the message in front of the answers has role "{prompt[-1].role}"; it must be "user" or "tool".')
    if given and given != prompt:
        raise BadRowError("the turns in front of the answers are not those of prompt. Make them the same, or leave one of the two out.")
    if chosen == rejected:
        return [], ["chosen equals rejected"]
    return [Record(prompt, (_answer(chosen[-1]), _answer(rejected[-1])), False, where)], []


def _labelled_records(row: dict[str, Any], where: str) -> _Parsed:
    """{prompt, completion, label}, or PaddleNLP's row with one answer: one record; a pair: two."""
    if "completion" in row or "label" in row:
        _need(row, ("prompt", "completion", "label"))
        if not isinstance(row["label"], bool):
            raise BadRowError(f"label is {shown(row['label'])}; it must be true (a desirable answer) or false.")
        return [Record(_prompt_messages(row, "prompt"), (_completion(row["completion"]),), False, where, desirable=row["label"])], []
    if "sort" in row and isinstance(row.get("response"), str | list) and len(read_texts(row["response"], "response")) == 1:
        prompt, answers, sort = _sorted_answers(row, 1)
        return [Record(prompt, answers, False, where, desirable=sort[0] > 0)], []
    records, reasons = _preference_records(row, where)
    sides = [(record, side) for record in records for side in (0, 1)]
    return [replace(record, responses=(record.responses[side],), desirable=side == 0) for record, side in sides], reasons


def _completion(value: object) -> str | Message:
    """An answer: a text, or one assistant's message in a list."""
    if not isinstance(value, list):
        return read_text(value, "completion")
    messages = read_messages(value, "completion")
    if len(messages) != 1 or messages[0].role != "assistant":
        raise BadRowError("completion is a list of messages; it must hold one, with role assistant.")
    return _answer(messages[0])


def _answer(message: Message) -> str | Message:
    """A response: the text, or the message where it calls tools."""
    return message if message.tool_calls else message.content or ""


def _other_command(row: object, kind: str) -> str:
    """Which command reads a row that has the form of another kind."""
    if not isinstance(row, dict):
        return ""
    pair = {"response", "sort"} <= row.keys() or {"chosen", "rejected"} <= row.keys()
    if kind == "sft" and pair:
        return " Use dpo_main.py for such rows."
    if kind == "preference" and {"completion", "label"} <= row.keys():
        return " Set loss_type to kto for such rows."
    if kind == "preference" and not row.keys() & {"chosen", "rejected", "response", "sort"} and row.keys() & {"tgt", "messages"}:
        return " Use sft_main.py for such rows."
    return ""


def _sorted_record(row: dict[str, Any], where: str) -> _Parsed:
    """PaddleNLP's pair: the answer with the higher sort is chosen."""
    prompt, answers, sort = _sorted_answers(row, 2)
    if sort[0] == sort[1]:
        return [], ["both answers have the same sort"]
    if answers[0] == answers[1]:
        return [], ["chosen equals rejected"]
    pair = answers if sort[0] > sort[1] else (answers[1], answers[0])
    return [Record(prompt, pair, False, where)], []


def _sorted_answers(row: dict[str, Any], count: int) -> tuple[tuple[Message, ...], tuple[str, ...], list[float]]:
    """The prompt, the answers and their sort of a PaddleNLP row with so many answers."""
    _need(row, ("src", "response", "sort"))
    sources = read_texts(row["src"], "src")
    targets = read_texts(row["tgt"], "tgt", may_be_empty=len(sources) == 1) if row.get("tgt") else ()
    if len(targets) != len(sources) - 1:
        raise BadRowError(f"src has {len(sources)} turns and tgt has {len(targets)}; tgt holds the earlier answers, one fewer than src.")
    answers, sort = read_texts(row["response"], "response"), row["sort"]
    words = {1: "one", 2: "two"}[count]
    if len(answers) != count:
        raise BadRowError(f"response holds {len(answers)} answers; it must hold {words}.")
    if not isinstance(sort, list) or len(sort) != count or not all(isinstance(x, (int, float)) for x in sort):
        meant = (
            "two numbers, the higher one for the chosen answer" if count == 2 else "one number in a list, above 0 for a desirable answer"
        )
        raise BadRowError(f"sort is {shown(sort)}; it must be {meant}.")
    return _system(row) + _interleave(sources, targets), answers, sort


def _prompt_records(row: dict[str, Any], where: str) -> _Parsed:
    """{messages}, {src, tgt?} or {prompt}. An answer that stands at the end is the reference answer, not part of the prompt."""
    if "messages" in row:
        messages = _with_system(row, read_messages(row["messages"], "messages"), "messages")
        if messages[-1].role == "assistant":
            messages = messages[:-1]
        if not messages or messages[-1].role not in ASKING:
            raise BadRowError("messages holds no user message to answer.")
        return [Record(messages, (), False, where)], []
    if "src" in row:
        sources = read_texts(row["src"], "src")
        targets = read_texts(row["tgt"], "tgt", may_be_empty=True)[: len(sources) - 1] if len(sources) > 1 and "tgt" in row else ()
        if len(targets) != len(sources) - 1:
            raise BadRowError(f"src has {len(sources)} turns and tgt has {len(targets)}; every earlier turn needs its answer.")
        return [Record(_system(row) + _interleave(sources, targets), (), False, where)], []
    _need(row, ("prompt",))
    return [Record(_prompt_messages(row, "prompt"), (), False, where)], []


def _prompt_messages(row: dict[str, Any], key: str) -> tuple[Message, ...]:
    """A prompt: a text, a list of turns that a user begins and ends, or a list of messages that a user ends."""
    value = row[key]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        messages = read_messages(value, key)
        if messages[-1].role not in ASKING:
            raise BadRowError(f'the last message of {key} has role "{messages[-1].role}"; it must be "user" or "tool".')
        return _with_system(row, messages, key)
    turns = read_texts(value, key)
    if len(turns) % 2 == 0:
        raise BadRowError(f"{key} has {len(turns)} turns; user and assistant take turns and the user has the last one: an odd number.")
    return _system(row) + _interleave(turns[0::2], turns[1::2])


def _interleave(user: Sequence[str], assistant: Sequence[str]) -> tuple[Message, ...]:
    """User, assistant, user, ...; ``assistant`` is as long as ``user`` or one shorter."""
    turns = []
    for index, text in enumerate(user):
        turns.append(Message("user", text))
        if index < len(assistant):
            turns.append(Message("assistant", assistant[index]))
    return tuple(turns)


def _system(row: dict[str, Any]) -> tuple[Message, ...]:
    """The row's ``system`` text as a message, if it has one."""
    if not row.get("system"):
        return ()
    return (Message("system", read_text(row["system"], "system")),)


def _with_system(row: dict[str, Any], messages: tuple[Message, ...], key: str) -> tuple[Message, ...]:
    """The messages behind the row's ``system`` text; they may not begin with a system message of their own then."""
    system = _system(row)
    if system and messages[0].role == "system":
        raise BadRowError(f"the row has a system text, and {key} begins with a system message too. Keep one of them.")
    return system + messages


def _need(row: dict[str, Any], keys: Sequence[str]) -> None:
    missing = [key for key in keys if key not in row]
    if missing:
        found = ", ".join(repr(key) for key in list(row)[:8]) or "no key at all"
        raise BadRowError(f"no {' and no '.join(repr(key) for key in missing)}; found {found}.")
