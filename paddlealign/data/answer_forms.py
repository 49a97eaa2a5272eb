"""Rows with one answer, or none: for SFT, for prediction, and with a label. From a row to its record."""

from typing import Any

from paddlealign.data.example import Message, Record
from paddlealign.data.message_rows import BadRowError, read_text, read_texts, shown
from paddlealign.data.row_parts import (
    ASKING,
    Parsed,
    answer,
    answer_message,
    answer_of,
    has,
    interleave,
    need,
    prompt_messages,
    system,
    with_system,
)
from paddlealign.data.sharegpt import conversation


def source_target(row: dict[str, Any], where: str) -> Parsed:
    """{src, tgt}, texts or as many turns of each; an empty ``src`` makes ``tgt`` a text without a prompt."""
    need(row, ("src", "tgt"))
    sources, targets = read_texts(row["src"], "src", may_be_empty=True), read_texts(row["tgt"], "tgt")
    if len(sources) != len(targets):
        raise BadRowError(f"src has {len(sources)} turns and tgt has {len(targets)}; they must be as many.")
    turns = interleave(sources, targets[:-1])
    if len(sources) == 1 and not sources[0]:
        turns = ()  # no prompt: the response is the whole text
    return [Record(system(row) + turns, (targets[-1],), len(targets) > 1, where)], []


def messages_answer(row: dict[str, Any], where: str) -> Parsed:
    """{messages}: a conversation that an assistant ends."""
    need(row, ("messages",))
    messages = with_system(row, conversation(row, "messages"), "messages")
    if messages[-1].role != "assistant":
        raise BadRowError(f'the last message has role "{messages[-1].role}"; in an SFT row it must be "assistant".')
    return [Record(messages[:-1], (answer_of(messages[-1]),), True, where, marks=messages[-1].marks)], []


def plain_answer(row: dict[str, Any], where: str) -> Parsed:
    """{prompt, response or completion}, texts (a prompt may be a list of turns)."""
    key = response_key(row)
    need(row, ("prompt", key))
    last = answer_message(row, key)
    return [Record(prompt_messages(row, "prompt"), (answer_of(last),), False, where, marks=last.marks)], []


def response_key(row: dict[str, Any]) -> str:
    """Under which key a row's answer stands."""
    return "completion" if "completion" in row and "response" not in row else "response"


def alpaca_answer(row: dict[str, Any], where: str) -> Parsed:
    """{instruction, input?, output, history?}: the input stands in a line below the instruction."""
    need(row, ("instruction", "output"))
    prompt = alpaca_prompt(row)
    return [Record(prompt, (read_text(row["output"], "output"),), any(message.role == "assistant" for message in prompt), where)], []


def alpaca_prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    """The earlier turns in ``history`` ([[question, answer], ...]), then instruction and input."""
    need(row, ("instruction",))
    turns: list[Message] = []
    history = row.get("history") or None
    if history is not None and not isinstance(history, list):
        raise BadRowError(f"history is {shown(history)}; it must be a list of [question, answer].")
    for index, turn in enumerate(history or []):
        if not isinstance(turn, list) or len(turn) != 2:
            raise BadRowError(f"history[{index}] is {shown(turn)}; it must be [question, answer].")
        pair = read_texts(turn, f"history[{index}]")
        turns += [Message("user", pair[0]), Message("assistant", pair[1])]
    text = read_text(row["instruction"], "instruction")
    if has(row, "input") and row["input"] != "":
        text += "\n" + read_text(row["input"], "input")
    return (*system(row), *turns, Message("user", text))


def sharegpt_answer(row: dict[str, Any], where: str) -> Parsed:
    """{conversations: [{from, value}, ...]}; collected ones often end in a question, and then teach nothing."""
    messages = with_system(row, conversation(row), "conversations")
    if messages[-1].role != "assistant":
        return [], ["the conversation does not end in an answer"]
    return [Record(messages[:-1], (answer_of(messages[-1]),), True, where, marks=messages[-1].marks)], []


def labelled_answer(row: dict[str, Any], where: str) -> Parsed:
    """{prompt, completion or response, label}: one answer that is desirable (true) or not."""
    key = "response" if "response" in row and "completion" not in row else "completion"
    need(row, ("prompt", key, "label"))
    if not isinstance(row["label"], bool):
        raise BadRowError(f"label is {shown(row['label'])}; it must be true (a desirable answer) or false.")
    return [Record(prompt_messages(row, "prompt"), (answer(row, key),), False, where, desirable=row["label"])], []


def messages_prompt(row: dict[str, Any], where: str) -> Parsed:
    """{messages} to be answered; an answer that stands at the end is the reference answer, not part of the prompt."""
    need(row, ("messages",))
    messages = with_system(row, conversation(row, "messages"), "messages")
    return _unanswered(messages, "messages", where)


def sharegpt_prompt(row: dict[str, Any], where: str) -> Parsed:
    """{conversations} to be answered, likewise."""
    return _unanswered(with_system(row, conversation(row), "conversations"), "conversations", where)


def _unanswered(messages: tuple[Message, ...], key: str, where: str) -> Parsed:
    if messages[-1].role == "assistant":
        messages = messages[:-1]
    if not messages or messages[-1].role not in ASKING:
        raise BadRowError(f"{key} holds no user message to answer.")
    return [Record(messages, (), False, where)], []


def source_prompt(row: dict[str, Any], where: str) -> Parsed:
    """{src, tgt?}: ``tgt`` holds the earlier answers, and perhaps the reference answer behind them."""
    need(row, ("src",))
    sources = read_texts(row["src"], "src")
    targets = read_texts(row["tgt"], "tgt", may_be_empty=True)[: len(sources) - 1] if len(sources) > 1 and "tgt" in row else ()
    if len(targets) != len(sources) - 1:
        raise BadRowError(f"src has {len(sources)} turns and tgt has {len(targets)}; every earlier turn needs its answer.")
    return [Record(system(row) + interleave(sources, targets), (), False, where)], []


def alpaca_question(row: dict[str, Any], where: str) -> Parsed:
    """{instruction, input?, history?} to be answered."""
    return [Record(alpaca_prompt(row), (), False, where)], []


def plain_prompt(row: dict[str, Any], where: str) -> Parsed:
    """{prompt}: a text, turns, or messages."""
    need(row, ("prompt",))
    return [Record(prompt_messages(row, "prompt"), (), False, where)], []
