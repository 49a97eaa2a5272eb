"""Chat templates come with a checkpoint, from anyone: none runs on without end, takes all memory, or gets at Python's insides."""

from pathlib import Path

import jinja2
import pytest

from paddlealign.data import jinja_limits
from paddlealign.data.jinja_template import compile_template
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "tokenizers"
MEGABYTE = "('a' * 1000000)"
HUGE = "1000000000"


def growing(start: str, step: str, written: str = "") -> str:
    """A template that makes a value of itself, sixty times."""
    rounds = "{% for i in range(60) %}{% set ns.x = " + step + " %}{% endfor %}"
    return "{% set ns = namespace(x=" + start + ") %}" + rounds + written


STEPS = [
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) if false %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% set x = range(100000) | list %}{% endfor %}",
    "{% for a in range(100000) %}{% set x = (" + MEGABYTE + ").split('a') %}{% endfor %}",
    "{% macro m(n) %}{% if n < 40 %}{{ m(n + 1) }}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) }}",
    "{% for a in [1] recursive %}{% if loop.depth == 1 %}{% set x = loop(range(60000)) %}{% endif %}{% endfor %}",
    "{% for a in range(99) | map('string') %}{% for b in range(100000) | map('string') %}{% endfor %}{% endfor %}",
    growing("[1]", "[ns.x, ns.x]", "{{ ns.x }}"),
    growing("[1]", "[ns.x, ns.x]", "{{ ns.x | tojson }}"),
    growing("[1]", "{'a': ns.x, 'b': ns.x}", "{% set y = ns.x ~ '' %}"),
    growing("[1]", "[ns.x, ns.x]", "{{ ns.x == [ns.x] }}"),
    growing("[1]", "ns.x + ns.x"),
    "{{ [1] * 10 ** 9 }}",
    "{% set x = 10 ** 9 * [1] %}",
]
TEXTS = [
    growing("'aaaaaaaaaa'", "ns.x ~ ns.x"),
    growing("'aaaaaaaaaa'", "ns.x + ns.x"),
    "{{ 'a' * 10 ** 9 }}",
    "{{ 10 ** 9 * 'a' }}",
    "{{ " + MEGABYTE + ".replace('a', " + MEGABYTE + ") }}",
    "{{ " + MEGABYTE + " | replace('', " + MEGABYTE + ") }}",
    "{{ " + MEGABYTE + ".join(" + MEGABYTE + ") }}",
    "{{ " + MEGABYTE + " | join(" + MEGABYTE + ") }}",
    "{% for i in range(100000) %}" + "x" * 1000 + "{% endfor %}",
    "{% set x %}{% for i in range(100000) %}" + "x" * 1000 + "{% endfor %}{% endset %}",
]
NUMBERS = [
    "{{ 'a' | center(" + HUGE + ") }}",
    "{{ 'a' | center(width=" + HUGE + ") }}",
    "{{ 'a' | center(*[" + HUGE + "]) }}",
    "{{ 'a' | center(**{'width': " + HUGE + "}) }}",
    "{{ ['a'] | map('center', " + HUGE + ") | list }}",
    "{{ [1] | batch(" + HUGE + ", 0) | list }}",
    "{{ [1] | slice(" + HUGE + ") | list }}",
    "{{ 1.5 | round(" + HUGE + ", 'ceil') }}",
    "{{ 'a\nb' | indent(" + HUGE + ") }}",
    "{{ [1] | tojson(indent=" + HUGE + ") }}",
]
WIDTHS = [
    "{{ '%" + HUGE + "d' % 1 }}",
    "{{ '%*d' % (" + HUGE + ", 1) }}",
    "{{ '{:" + HUGE + "}'.format(1) }}",
    "{{ '{:{}}'.format(1, " + HUGE + ") }}",
    "{{ '%" + HUGE + "d' | format(1) }}",
    "{{ ['%" + HUGE + "d'] | map('format', 1) | list }}",
]
BITS = [growing("7", "ns.x * ns.x"), "{{ 10 ** (10 ** 9) }}"]
CASES = [
    *((source, "takes more than 50,000 steps") for source in STEPS),
    *((source, "makes a text of more than 10,000,000 characters") for source in TEXTS),
    *((source, "gives a filter a number above 100,000") for source in NUMBERS),
    *((source, "pads a text to a width of six digits") for source in WIDTHS),
    *((source, "computes a number of more than 10,000 bits") for source in BITS),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself without end"),
    ("{% for a in [1] recursive %}{{ loop([a]) }}{% endfor %}", "calls itself without end"),
    ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "is nested too deeply"),
    ("{% for i in [1] %}" * 60 + "{% endfor %}" * 60, "cannot be compiled"),
    ("x" * 1_000_001, "has 1,000,001 characters"),
]


@pytest.mark.parametrize(("source", "said"), CASES, ids=range(len(CASES)))
def test_what_takes_too_much_ends_the_command(source: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = "makes a text" in said
    monkeypatch.setattr(jinja_limits, "MOST_STEPS", 2_000_000 if texts else 50_000)
    monkeypatch.setattr(jinja_limits, "LONGEST_TEXT", 10_000_000)
    with pytest.raises(UserError, match=f"^chat_template: the tokenizer's chat template {said}.*set chat_template to"):
        compile_template(source, "tokenizer").render(messages=[])


def test_it_ends_the_command_where_the_template_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text("{{ 'a' * 10 ** 9 }}")
    with pytest.raises(UserError, match=f"^chat_template: {path} makes a text"):
        load_template(Tokenizer.load(GOLDEN / "qwen2"), str(path))


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a'.center(9) }}",
        "{{ 'a'['center'](9) }}",
        "{{ ('a' | attr('ljust'))(9) }}",
        "{{ (5).to_bytes(9, 'big') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ cycler.__init__.__globals__['os'] }}",
        "{{ self._TemplateReference__context.x }}",
        "{% include 'x' %}",
        "{{ 1 / 0 }}",
    ],
)
def test_what_the_sandbox_has_not_is_an_error_of_the_row(source: str) -> None:
    with pytest.raises((jinja2.TemplateError, TypeError)):
        compile_template(source, "tokenizer").render(messages=[])


def test_each_rendering_has_the_whole_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja_limits, "MOST_STEPS", 30_000)
    template = compile_template("{% for i in range(12000) %}{% endfor %}{{ messages }}", "tokenizer")
    assert [template.render(messages=text) for text in "abc"] == ["a", "b", "c"]


def test_counting_changes_nothing_that_a_template_writes() -> None:
    source = (
        "{% macro say(m, times=1) %}{{ ('<' ~ m.role ~ '>') * times }}{{ caller() if caller }}{% endmacro %}"
        "{% for m in messages | selectattr('role', 'ne', 'x') %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}"
        "{{ say(m, times=2) }}{{ m.content.replace('a', 'b', 1).strip() }}{{ ', '.join(['x', 'y']) }}{{ [1, 2] | join('-') }}"
        "{{ 'aa' | replace('a', 'c') }}{{ '%s:%d' | format('n', 3) }}{{ '{:>4}'.format(7) }}{{ '%05.1f' % 2.5 }}"
        "{{ 'z' in m.content }}{{ m.content[1:3] }}{{ m.content[::-1] }}{{ [1] + [2] == [1, 2] }}{{ 2 ** 10 }}\n{% endfor %}"
        "{% set text %}in {{ 1 + 1 }}{% endset %}{{ text | upper }}{% filter lower %}OUT{% endfilter %}"
        "{% call say({'role': 'r'}) %}!{% endcall %}{% for n in [1, [2]] recursive %}{{ n if n is number else loop(n) }}{% endfor %}"
        "{{ {'b': [1, none], 'a': true} | tojson }}{{ missing | default('d') }}{% for x in missing %}{% else %}none{% endfor %}"
    )
    messages = [{"role": "u", "content": " banana "}, {"role": "x", "content": ""}, {"role": "a", "content": "z"}]
    plain = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False)
    plain.filters["tojson"] = compile_template("", "tokenizer").environment.filters["tojson"]
    assert compile_template(source, "tokenizer").render(messages=messages) == plain.from_string(source).render(messages=messages)
