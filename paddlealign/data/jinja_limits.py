"""Limits for chat templates, which come from whoever made the checkpoint: none can take endless time or memory.

jinja's sandbox keeps a template from Python's insides, and ranges below 100,000; it knows nothing of a loop within a loop, of
``"a" * 10 ** 9``, or of a text that doubles forty times. So the syntax tree is rewritten before it is compiled: whatever a loop goes
through, a filter takes or an output writes is counted first, by size, against one allowance for each rendering.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NoReturn

import jinja2
from jinja2 import Template as JinjaTemplate
from jinja2 import nodes
from jinja2.filters import do_replace, sync_do_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from paddlealign.errors import UserError

# Of one rendering. A conversation of a thousand turns and a megabyte takes about 50,000 steps.
MOST_STEPS = 2_000_000
LONGEST_TEXT = 50_000_000  # characters
LONGEST_SOURCE = 1_000_000  # characters; the longest known templates have 20,000
LARGEST_ARGUMENT = 100_000  # of a filter: a width, a number of parts
_LARGEST_BITS = 10_000  # of a product or power
_CHARACTERS_OF_A_STEP = 100

# Methods of texts that make a text as long as a number says, or that run through a table. No chat template is known to need them.
_GROWING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "translate"})
# Filters that look at a list's items one by one or at none: what these hold need not be counted.
_SHALLOW = frozenset({
    "attr", "batch", "count", "d", "default", "dictsort", "first", "groupby", "items", "last", "length", "list", "map", "max", "min",
    "random", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "sort", "unique",
})  # fmt: skip
_WIDE_PERCENT = re.compile(r"%[^%a-zA-Z]*(?:\d{6}|\*)")
_WIDE_BRACES = re.compile(r"\{[^{}]*:[^{}]*(?:\d{6}|\{)")


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """jinja's sandbox with an allowance of steps, which each rendering gets anew."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def restrict(self, name: str) -> None:
        """Put the limits in force. name: of the template, for messages."""
        self.limited_name, self.steps_left = name, MOST_STEPS
        self.template_class = _Refilling
        self.filters |= {"_taken": self.taken, "_written": self.written, "_bounded": self.bounded, "_looped": self.looped}
        self.filters |= {"replace": self.replace_filter, "join": self.join_filter, "format": self.format_filter}
        del self.globals["lipsum"]

    def compile_limited(self, source: str) -> jinja2.Template:
        """The template, with its counting. Raises jinja2.TemplateSyntaxError, and UserError for what is too long or too deep."""
        if len(source) > LONGEST_SOURCE:
            self.refuse(f"has {len(source):,} characters ({LONGEST_SOURCE:,} are allowed)")
        try:
            counting = _Counting().visit(self.parse(source)).set_environment(self)
            return self.from_string(counting)
        except (RecursionError, MemoryError):
            self.refuse("is nested too deeply")
        except SyntaxError as error:  # of the Python that jinja makes of it
            self.refuse(f"cannot be compiled ({error.msg})")

    def refuse(self, why: str) -> NoReturn:
        """End the command: a template that goes beyond a limit does so for every row."""
        raise UserError(
            f"chat_template: {self.limited_name} {why}, which no template for conversations needs. Do not use it; set chat_template to "
            "the path of another template, or to none."
        )

    def charge(self, steps: int) -> None:
        """Take steps from the rendering's allowance."""
        self.steps_left -= steps
        if self.steps_left < 0:
            self.refuse(f"takes more than {MOST_STEPS:,} steps for one conversation")

    def charge_text(self, characters: int) -> None:
        """Count a text that is read or made."""
        if characters > LONGEST_TEXT:
            self.refuse(f"makes a text of more than {LONGEST_TEXT:,} characters")
        self.charge(1 + characters // _CHARACTERS_OF_A_STEP)

    def charge_value(self, value: Any, weight: int = 1) -> None:
        """Count a text by its length, and whatever else has a length by the number of its items, each so many steps."""
        if isinstance(value, str):
            self.charge_text(len(value))
        else:
            self.charge(1 + weight * len(value) if hasattr(value, "__len__") else 1)

    @jinja2.pass_context
    def taken(self, _: Any, value: Any) -> Any:
        """The value, after it was counted; what has no length counts as it is gone through."""
        self.charge_value(value)
        return self._counted(value, 1) if hasattr(value, "__next__") else value

    @jinja2.pass_context
    def looped(self, _: Any, value: Any, weight: int) -> Any:
        """What a loop goes through, likewise; weight: the steps of a round."""
        self.charge_value(value, weight)
        return self._counted(value, weight) if hasattr(value, "__next__") else value

    def _counted(self, items: Iterable[Any], steps: int) -> Iterable[Any]:
        for item in items:
            self.charge(steps)
            yield item

    @jinja2.pass_context
    def written(self, _: Any, value: Any) -> Any:
        """The value, after all that it holds was counted: a list that holds a list twice, many times over, is short and never written."""
        if type(value) is str:
            self.charge_text(len(value))
            return value
        waiting = [value]
        while waiting:
            item = waiting.pop()
            self.charge_value(item)
            if isinstance(item, Mapping):
                waiting += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple | set | frozenset):
                waiting += item
        return self._counted(value, 1) if hasattr(value, "__next__") else value

    @jinja2.pass_context
    def bounded(self, _: Any, value: Any) -> Any:
        """A filter's argument, or a list or mapping of them."""
        self.charge_value(value)
        items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(item, int | float) and abs(item) > LARGEST_ARGUMENT for item in items):
            self.refuse(f"gives a filter a number above {LARGEST_ARGUMENT:,}")
        return value

    def concat(self, parts: Iterable[str]) -> str:
        """Join what a template, a macro or a block wrote."""
        kept = list(parts)
        self.charge_text(sum(map(len, kept)))
        return "".join(kept)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """``left operator right``, where the result is not too large."""
        self.charge_value(left)
        self.charge_value(right)
        if isinstance(left, int) and isinstance(right, int):
            if operator in ("*", "**"):
                bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
                if bits > _LARGEST_BITS:
                    self.refuse(f"computes a number of more than {_LARGEST_BITS:,} bits")
        elif operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(times, int) and hasattr(many, "__len__"):
                    size = len(many) * max(0, times)
                    self.charge_text(size) if isinstance(many, str) else self.charge(size)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.charge_text(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            self._refuse_wide(_WIDE_PERCENT, left)
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute; a text's ``replace`` and ``join`` look at what they would make."""
        if isinstance(obj, str | list | tuple):
            self.charge_value(obj)
            if isinstance(obj, str) and attribute in ("replace", "join"):
                return partial(self.replaced if attribute == "replace" else self.joined, obj)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """See jinja's. What makes a text as long as a number says is not safe."""
        if isinstance(obj, str) and (attr in _GROWING or attr in ("replace", "join")):  # these by ``getattr`` alone
            return False
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, int) and attr == "to_bytes")

    def wrap_str_format(self, value: Any) -> Any:
        """See jinja's; a format that pads to a great width is refused."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            self._refuse_wide(_WIDE_BRACES, value.__self__)
        return wrapped

    def _refuse_wide(self, pattern: re.Pattern[str], text: str) -> None:
        if pattern.search(text):
            self.refuse("pads a text to a width of six digits, or to one that it computes")

    def format_filter(self, text: Any, *values: Any) -> str:
        """As jinja's filter ``format``, with values by place: ``"%s" | format(a)``."""
        self._refuse_wide(_WIDE_PERCENT, str(text))
        return str(text) % values

    def replaced(self, text: str, old: str, new: str, count: int = -1) -> str:
        """``text.replace(old, new, count)``."""
        self._charge_replacing(text, old, new, count)
        return text.replace(old, new, count)

    def _charge_replacing(self, text: str, old: str, new: str, count: int) -> None:
        times = text.count(old) if count < 0 else min(count, text.count(old))
        self.charge_text(len(text) + times * len(new))

    @jinja2.pass_eval_context
    def replace_filter(self, context: Any, text: Any, old: str, new: str, count: int | None = None) -> str:
        """As jinja's filter ``replace``."""
        self._charge_replacing(str(text), str(old), str(new), -1 if count is None else count)
        return do_replace(context, text, old, new, count)

    def joined(self, text: str, parts: Iterable[Any]) -> str:
        """``text.join(parts)``."""
        kept = list(parts)
        self._charge_joining(text, kept)
        return text.join(kept)

    def _charge_joining(self, text: str, parts: list[Any]) -> None:
        self.charge_text(len(text) * len(parts) + sum(len(part) if isinstance(part, str) else 1 for part in parts))

    @jinja2.pass_eval_context
    def join_filter(self, context: Any, parts: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        """As jinja's filter ``join``."""
        kept = list(parts)
        self._charge_joining(str(d), kept)
        return sync_do_join(context, kept, d, attribute)

    def handle_exception(self, source: str | None = None) -> NoReturn:
        """Re-raise what a template raised; Python's own errors in it as jinja's, which cost a row, not a traceback."""
        try:
            super().handle_exception(source)
        except RecursionError:
            self.refuse("calls itself without end, or nests what it writes without end")
        except MemoryError:
            self.refuse("takes more memory than there is")
        except (ArithmeticError, AssertionError) as error:
            raise jinja2.TemplateRuntimeError(f"{type(error).__name__}: {error}") from None


class _Refilling(JinjaTemplate):
    """A template whose every rendering begins with the whole allowance."""

    def new_context(self, vars: Any = None, shared: bool = False, locals: Any = None) -> Any:  # noqa: A002 - jinja2's names
        """See jinja's; called once at the start of a rendering."""
        self.environment.steps_left = MOST_STEPS  # type: ignore[attr-defined]
        return super().new_context(vars, shared, locals)


class _Counting(NodeTransformer):
    """Puts the counting filters around the expressions of a template. None of the three can be computed before the template runs."""

    def _filtered(self, node: Any, name: str) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    def _weight(self, node: nodes.Node) -> nodes.Const:
        """The steps of going through a node once: how often it writes, and one."""
        return nodes.Const(1 + sum(1 for _ in node.find_all(nodes.Output)), lineno=node.lineno)

    def _step(self, node: nodes.Node) -> nodes.ExprStmt:
        """A statement that counts the steps of its node."""
        counted = nodes.Filter(nodes.Const((None,), lineno=node.lineno), "_looped", [self._weight(node)], [], None, None)
        return nodes.ExprStmt(counted.set_lineno(node.lineno), lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - jinja2's names
        """What is gone through counts before; a recursive loop brings its own items, so that each of its rounds counts instead."""
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_looped", [self._weight(node)], [], None, None, lineno=node.lineno)
        if node.recursive:
            node.body.insert(0, self._step(node))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802
        """Each call counts."""
        self.generic_visit(node)
        node.body.insert(0, self._step(node))
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:  # noqa: N802
        """Each call of the block counts."""
        self.generic_visit(node)
        node.body.insert(0, self._step(node))
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Filter:  # noqa: N802
        """What it takes is counted, and its arguments are bounded. A filter around a block has no node."""
        self.generic_visit(node)
        if node.node is not None:
            node.node = self._filtered(node.node, "_taken" if node.name in _SHALLOW else "_written")
        node.args = [self._filtered(argument, "_bounded") for argument in node.args]
        for pair in node.kwargs:
            pair.value = self._filtered(pair.value, "_bounded")
        node.dyn_args = node.dyn_args and self._filtered(node.dyn_args, "_bounded")
        node.dyn_kwargs = node.dyn_kwargs and self._filtered(node.dyn_kwargs, "_bounded")
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802
        """What is written is counted; the template's own text when it is joined."""
        self.generic_visit(node)
        node.nodes = [it if isinstance(it, nodes.TemplateData) else self._filtered(it, "_written") for it in node.nodes]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Concat:  # noqa: N802
        """``a ~ b``."""
        self.generic_visit(node)
        node.nodes = [self._filtered(it, "_written") for it in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802
        """Comparing lists looks at all that they hold; ``in`` at the items of one."""
        self.generic_visit(node)
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        deep = all(operand.op not in ("in", "notin") for operand in node.ops)
        if deep and any(isinstance(side, nodes.Const) for side in sides):
            return node  # no longer than the constant
        if deep:
            node.expr = self._filtered(node.expr, "_written")
        for operand in node.ops:
            operand.expr = self._filtered(operand.expr, "_written" if deep else "_taken")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Getitem:  # noqa: N802
        """A slice copies."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._filtered(node.node, "_taken")
        return node
