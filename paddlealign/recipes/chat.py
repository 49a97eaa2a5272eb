"""A chat in the terminal: the history is kept, answers appear as they are generated."""

import sys
from collections.abc import Iterable, Iterator

from paddlealign.data.encoding import encode_prompt
from paddlealign.data.example import Message, Record
from paddlealign.data.streaming import growing_text
from paddlealign.data.template import Template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.messages.language import translated
from paddlealign.models.decoder import Decoder
from paddlealign.models.generation import stream
from paddlealign.models.sampling import GenerationSettings

HELP = "Type a message. /reset forgets the conversation, /exit ends the chat, Ctrl-C stops an answer."


def chat(model: Decoder, tokenizer: Tokenizer, template: Template, settings: GenerationSettings, src_length: int) -> None:
    """Read messages from the terminal and answer them until /exit, the end of the input, or Ctrl-C where a message is awaited.

    src_length: most tokens of history and message together, as far as they leave room for an answer (``prompt_limit``); the oldest turns
    are left out where they no longer fit.
    """
    print(translated(HELP))
    positions = model.config.max_positions
    limit = prompt_limit(src_length, settings.max_new_tokens, positions)
    history: list[Message] = []
    answers = 0
    told = False
    while True:
        try:
            text = input("\nyou> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not sys.stdin.isatty():  # a terminal shows what is typed; a file or a pipe does not
            print(text)
        if text == "/exit":
            return
        if text == "/reset":
            history = []
            print(translated("(the conversation is forgotten)"))
            continue
        if text.startswith("/"):
            print(translated(f"({text} is no command. {HELP})"))
            continue
        if not text:
            continue
        try:
            turns, prompt = fit_history([*history, Message("user", text)], tokenizer, template, limit)
        except UserError as error:
            print(f"({translated(str(error))})")
            continue
        if len(turns) <= len(history) and not told:
            told = True
            print(translated("(the oldest turns no longer fit and are left out; this is said once)"))
        tokens: list[int] = []
        answer = say_answer(noted(stream(model, prompt, settings, answers), tokens), tokenizer, settings.stop_ids)
        if len(prompt) + len(tokens) == positions and len(tokens) < settings.max_new_tokens and not settings.ends(tokens):
            print(translated(f"(the answer was cut: the model has {positions} positions. /reset makes room for longer ones)"))
        answers += 1
        history = [*turns, Message("assistant", answer)]


def prompt_limit(src_length: int, max_new_tokens: int, positions: int) -> int:
    """Most tokens of a prompt: an answer has room for ``max_new_tokens``, or for half of the positions where that is less."""
    return min(src_length, positions - min(max_new_tokens, positions // 2))


def noted(tokens: Iterable[int], seen: list[int]) -> Iterator[int]:
    """The tokens as they come, each put into ``seen`` before it is given on."""
    for token in tokens:
        seen.append(token)
        yield token


def fit_history(turns: list[Message], tokenizer: Tokenizer, template: Template, limit: int) -> tuple[list[Message], list[int]]:
    """The latest turns, beginning with a user's, whose prompt has ``limit`` tokens at most, and that prompt's tokens.

    Raises UserError where the last message alone is too long, or empty in tokens.
    """
    while True:
        prompt = encode_prompt(Record(tuple(turns), (), False, "this message"), tokenizer, template).ids
        if 0 < len(prompt) <= limit:
            return turns, [int(index) for index in prompt]
        if len(turns) == 1:
            raise UserError(f"this message has {len(prompt)} tokens; 1 to {limit} are possible (src_length, and the room for an answer)")
        turns = turns[2:]


def say_answer(tokens: Iterable[int], tokenizer: Tokenizer, stop_ids: tuple[int, ...]) -> str:
    """Print an answer as its tokens come; Ctrl-C ends it. Returns its text."""
    print("model> ", end="", flush=True)
    text = ""
    try:
        for piece in growing_text(tokens, tokenizer, stop_ids):
            print(piece, end="", flush=True)
            text += piece
    except KeyboardInterrupt:
        print(" (stopped)", end="")
    print()
    return text
