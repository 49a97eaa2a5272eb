"""The arguments of runs as tables: of one run, what was changed first; of several, where they differ. Pure functions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paddlealign.report.run_files import RunFiles

# From what the user said to what nobody did.
_SOURCES = ("command line", "file", "derived", "default")


@dataclass(frozen=True)
class Argument:
    """A row of the table. source: where the value comes from; a default that nobody touched is "default"."""

    section: str
    key: str
    value: str
    source: str

    @property
    def changed(self) -> bool:
        """Whether anyone set it."""
        return self.source != "default"


@dataclass(frozen=True)
class Difference:
    """A key that the runs do not agree on. values: of each run, in their order."""

    key: str
    values: tuple[str, ...]


def arguments_of(run: RunFiles) -> list[Argument]:
    """All arguments of a run: of the command line, of the file, what follows from them, the defaults; else in run.json's order."""
    found = [
        Argument(section, key, shown(item["value"]), item["source"])
        for section, items in run.run["arguments"].items()
        for key, item in items.items()
    ]
    return sorted(found, key=lambda it: _SOURCES.index(it.source) if it.source in _SOURCES else 0)


def differences(runs: Sequence[RunFiles]) -> list[Difference]:
    """The keys that have not one value in all runs, in the order of the first run that has them; output_dir, which must differ, is none."""
    told = [{"command": run.run["command"], **run.arguments} for run in runs]
    keys = dict.fromkeys(key for arguments in told for key in arguments if key != "output_dir")
    rows = [Difference(key, tuple(shown(of_run[key]) if key in of_run else "(no such key)" for of_run in told)) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]


def shown(value: Any) -> str:
    """A value as it would be typed."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and all(isinstance(it, str) for it in value):
        return " ".join(value)
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
