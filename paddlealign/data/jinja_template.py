"""The jinja environment that chat templates of HuggingFace checkpoints are written for."""

import datetime
import json
from typing import Any

import jinja2
import jinja2.ext

from paddlealign.data.jinja_limits import LimitedEnvironment
from paddlealign.errors import UserError


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
    """Lets ``{% generation %}`` ... ``{% endgeneration %}`` through: transformers marks answers with it, here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's interface

    def parse(self, parser: Any) -> Any:
        """The block's body."""
        line = next(parser.stream).lineno
        return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _to_json(
    value: object, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)  # the local day, as templates expect
