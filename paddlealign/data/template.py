"""Chat templates: which one a run uses, and conversations through it as they stand. ``rendering`` finds the answers in what comes out."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2

from paddlealign.arguments.template_names import ALLOWED, TEMPLATE_NAMES, template_name, template_problem
from paddlealign.data.answer_spans import Ends, RowRefusedError, mark, split_at_marks
from paddlealign.data.jinja_template import SHOW_BLOCKS, compile_template, has_blocks
from paddlealign.data.literal_text import Masks, any_of
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

_TAG = re.compile(r"</?\w+>")
NAMED_FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Template:
    """How conversations become text. ``compiled`` None: the turns are joined as they are, with an EOS after every answer.

    with_tools: the checkpoint's own template for rows with tools, where it has one. name: "none", "tokenizer", a name or the file, for
    messages. end_token: what ends an assistant's turn. stop_ids: the ids that end a generated answer. masks: of the special tokens and of
    those that the template frames turns with, which only the template and the tokenizer write. marks_answers: whether the template says
    itself what is scored ({% generation %}).
    """

    name: str
    compiled: jinja2.Template | None
    with_tools: jinja2.Template | None
    named_tokens: dict[str, str]
    end_token: str
    ends: Ends
    stop_ids: tuple[int, ...]
    masks: Masks
    marks_answers: bool
    fingerprint: str


def load_template(tokenizer: Tokenizer, choice: str = "auto") -> Template:
    """The template of the ``chat_template`` key: "auto" (the tokenizer's, else none), "none", a name, or the path of a jinja file."""
    for_tools = tokenizer.tool_template if choice == "auto" else None
    name = template_name(choice)
    if choice == "none" or (choice == "auto" and tokenizer.chat_template is None):
        source, shown = None, "none"
    elif choice == "auto":
        source, shown = tokenizer.chat_template, "tokenizer"
    else:
        source, shown = template_source(choice), name or choice
        _need_tokens(tokenizer, name)
    ends = [text for text in tokenizer.special_tokens if text not in (tokenizer.named_tokens.get("bos_token"), "")]
    any_end = any_of([*ends, tokenizer.eos_token])
    template = Template(
        name=shown,
        compiled=None if source is None else compile_template(source, shown),
        with_tools=None if for_tools is None else compile_template(for_tools, shown),
        named_tokens=tokenizer.named_tokens,
        end_token=tokenizer.eos_token,
        ends=Ends(any_end, any_end, tokenizer.eos_token),
        stop_ids=tokenizer.stop_ids,
        masks=Masks(tokenizer.control_tokens),
        marks_answers=has_blocks(source or ""),
        fingerprint=hashlib.sha256(((source or "") + (for_tools or "")).encode()).hexdigest(),
    )
    template = replace(template, masks=Masks([*tokenizer.control_tokens, *_frame_tokens(template, tokenizer)]))
    end_token = _find_end_token(template)
    end_id = tokenizer.special_tokens.get(end_token, tokenizer.eos_id)
    stop_ids = tuple(dict.fromkeys([*tokenizer.stop_ids, end_id]))
    stops = [text for text, index in tokenizer.special_tokens.items() if index in stop_ids]
    ends_with = Ends(any_end, any_of([tokenizer.eos_token, end_token, *stops]), tokenizer.eos_token)
    return replace(template, end_token=end_token, ends=ends_with, stop_ids=stop_ids)


def template_source(choice: str) -> str:
    """The jinja text of a template that is given by name or path. Raises UserError."""
    name = template_name(choice)
    path = Path(choice) if name is None else NAMED_FOLDER / f"{name}.jinja"
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(template_problem(choice) or f"chat_template: {choice!r} cannot be read ({error}). Give {ALLOWED}.") from None


def _need_tokens(tokenizer: Tokenizer, name: str | None) -> None:
    """A named template writes special tokens, and to a tokenizer without them its turns would be so many plain characters."""
    known = tokenizer.model.added_tokens()
    missing = [token for token in TEMPLATE_NAMES.get(name or "", ()) if token not in known]
    if missing:
        fitting = [other for other, tokens in TEMPLATE_NAMES.items() if all(token in known for token in tokens)]
        raise UserError(
            f"chat_template: {name} writes {' and '.join(missing)}, which the tokenizer of {tokenizer.folder} does not have as a token "
            f"of its own; its turns would be plain characters to the model. Templates that fit this tokenizer: {', '.join(fitting)}. "
            "(To add the token, put it into the tokenizer's files as a special token, and set resize_vocab.)"
        )


def run(
    template: Template,
    messages: list[dict[str, Any]],
    tools: Sequence[dict[str, Any]] | None,
    add_generation_prompt: bool = False,
    show_blocks: bool = False,
) -> str:
    """What the template makes of messages; ``show_blocks`` leaves marks where it says what is scored. Raises RowRefusedError."""
    compiled = template.with_tools if tools is not None and template.with_tools is not None else template.compiled
    assert compiled is not None
    try:
        return compiled.render(
            messages=messages,
            tools=None if tools is None else list(tools),
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **({SHOW_BLOCKS: True} if show_blocks else {}),
            **template.named_tokens,
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        stumbled = isinstance(error, jinja2.UndefinedError | TypeError) and any(map(of_tools, messages))
        hint = " (the row has tool calls or results; set chat_template to one that shows them)" if stumbled else ""
        raise RowRefusedError(f"the chat template raises: {str(error).rstrip('.')}{hint}") from None


def of_tools(message: dict[str, Any]) -> bool:
    """Whether a turn calls tools, or is a tool's result."""
    return "tool_calls" in message or message["role"] == "tool"


def _frame_tokens(template: Template, tokenizer: Tokenizer) -> list[str]:
    """The added tokens that a template frames turns with although the tokenizer does not call them special, as some do.

    Tags such as <think> are none of them: an answer holds such a token itself.
    """
    if template.compiled is None:
        return []
    turns = [{"role": role, "content": mark(0)} for role in ("user", "assistant", "user")]
    try:
        text = run(template, turns, None)
    except RowRefusedError:
        return []
    return [token for token in tokenizer.model.added_tokens() if token in text and not _TAG.fullmatch(token)]


def _find_end_token(template: Template) -> str:
    """What the template writes after an answer, up to its first special token; the EOS where it writes none."""
    if template.compiled is None:
        return template.end_token
    question = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark(0)}]
    try:
        tail = split_at_marks(run(template, question, None))[-1]
    except RowRefusedError:
        return template.end_token
    match = template.ends.any.search(tail)
    return match.group() if match else template.end_token
