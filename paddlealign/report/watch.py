"""What a run's curves mean, in plain words: the rules of ``curve_rules`` over the rows of the run log as they come.

Findings are a function of the rows and the arguments alone, so a resumed run finds what an uninterrupted one does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from paddlealign.report.curve_rules import RULES, Figure
from paddlealign.report.curve_statistics import LEAST_ROWS, Curves
from paddlealign.report.remedies import Run, Try

Row = Mapping[str, Any]

# After so many rows not every row is looked at again, but as many in a doubling: a look costs in proportion to the rows.
_LOOKS = 100


@dataclass(frozen=True)
class Finding:
    """A rule that the curves meet. name: the rule's. step: where it was first seen, with the figures of then. tries: see ``Sign``."""

    name: str
    step: int
    figures: tuple[Figure, ...]
    meaning: str
    tries: tuple[Try, ...]


class Watch:
    """Reads the rows of one run as they are logged, and finds each thing once."""

    def __init__(self, run: Run) -> None:
        """run: whose rows these are."""
        self.found: list[Finding] = []
        self._run = run
        self._curves = Curves()
        self._rules = [rule for rule in RULES if run.command in rule.commands]

    def see(self, row: Row) -> list[Finding]:
        """Take one more row of the run log. Returns what is seen for the first time."""
        self._curves.add(row)
        if self._curves.rows % max(self._curves.rows // _LOOKS, 1):
            return []
        signs = [(rule, rule.look(self._curves, self._run)) for rule in self._rules]
        new = [Finding(rule.name, row["step"], sign.figures, rule.meaning, sign.tries) for rule, sign in signs if sign]
        self._rules = [rule for rule, sign in signs if not sign]
        self.found += new
        return new

    def summary(self) -> str:
        """What the end of a run says."""
        trained = len(self._curves.column("loss"))
        if self.found:
            return "\n".join(["what the curves say (docs/curves.md):", *(tell(it) for it in self.found)])
        if trained < LEAST_ROWS:
            way = more_lines(self._run)
            return f"what the curves say: too early to tell from {trained} training lines; {LEAST_ROWS} are needed ({way})"
        return "what the curves say: nothing that asks for a change (docs/curves.md)"


def findings(rows: Iterable[Row], run: Run) -> tuple[Finding, ...]:
    """All that the rows of a run log show, in the order in which it was first seen."""
    watch = Watch(run)
    for row in rows:
        watch.see(row)
    return tuple(watch.found)


def more_lines(run: Run) -> str:
    """The key, and where it helps the value, that makes a run log long enough for the rules."""
    every = run.total_steps // LEAST_ROWS
    if 0 < every < run.arguments["logging_steps"]:
        return f"--logging_steps {every}"
    return "logging_steps" if every else "max_steps"


def tell(finding: Finding) -> str:
    """A finding in two lines: what was seen and what it means; and what to try."""
    seen = ", ".join(f"{it.name} {it.before:.4g} to {it.now:.4g}" for it in finding.figures)
    tries = "; or ".join(" ".join(f"--{key} {_value(value)}" for key, value in it.items()) for it in finding.tries)
    return "\n".join((f"  {finding.name}, step {finding.step}: {seen}. {finding.meaning}", f"    what may help: {tries}"))


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
