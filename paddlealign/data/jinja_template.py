"""The jinja environment that chat templates of HuggingFace checkpoints are written for."""

import datetime
import json
import re
from typing import Any

import jinja2
import jinja2.ext

from paddlealign.data.jinja_limits import LimitedEnvironment
from paddlealign.errors import UserError

SHOW_BLOCKS = "paddlealign_shows_blocks"  # a template's variable under which a generation block leaves marks around what it writes
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"  # no characters, by Unicode: for a program's own use


def compile_template(source: str, name: str) -> jinja2.Template:
    """The template in the sandbox that chat templates are written for, within limits. ``name``: "tokenizer" or a file, for messages."""
    where = "the tokenizer's chat template" if name == "tokenizer" else name
    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _GenerationBlock], autoescape=False
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.restrict(where)
    try:
        return environment.compile_limited(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"chat_template: {where}, line {error.lineno}: {str(error.message).rstrip('.')}.") from None


class _GenerationBlock(jinja2.ext.Extension):
    """``{% generation %}`` ... ``{% endgeneration %}`` stand around what is scored, as in transformers."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's interface

    def parse(self, parser: Any) -> Any:
        """The block's body, between marks where they are asked for."""
        line = next(parser.stream).lineno
        body = jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)
        return [_when_shown(_OPEN, line), body, _when_shown(_CLOSE, line)]


def _when_shown(mark: str, line: int) -> jinja2.nodes.Output:
    asked = jinja2.nodes.Name(SHOW_BLOCKS, "load", lineno=line)
    nothing = jinja2.nodes.Const("", lineno=line)
    return jinja2.nodes.Output([jinja2.nodes.CondExpr(asked, jinja2.nodes.Const(mark, lineno=line), nothing, lineno=line)], lineno=line)


def has_blocks(source: str) -> bool:
    """Whether a template says what is scored."""
    return re.search(r"\{%[-+]?\s*generation\b", source) is not None


def block_spans(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text rendered with ``SHOW_BLOCKS``, without the marks, and what stood between them."""
    parts = re.split(f"([{_OPEN}{_CLOSE}])", text)
    plain, spans, opened = "", [], 0
    for part in parts:
        if part == _CLOSE and len(plain) > opened:
            spans.append((opened, len(plain)))
        opened = len(plain) if part == _OPEN else opened
        plain += "" if part in (_OPEN, _CLOSE) else part
    return plain, spans


def _to_json(
    value: object, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)  # the local day, as templates expect
