"""What became of another tool's keys, as a table: as wide as the terminal, plain text where there is none."""

import io
import shutil
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paddlealign.arguments.results import Told
from paddlealign.messages.language import translated

_WIDTH = 160


def told_table(told: Sequence[Told]) -> str:
    """A line for each of their keys: first those that are ours, in the order in which they were read, then those with nothing to do."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, most in (("their key", 58), ("ours", 30), ("value", 24), ("how it is read, or why it is ignored", 60)):
        table.add_column(translated(title), overflow="fold", max_width=most)
    for line in sorted(told, key=lambda it: not it.ours):
        table.add_row(*(Text(cell) for cell in (line.theirs, line.ours or "(ignored)", line.value, translated(line.why))))
    text = io.StringIO()
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    Console(file=text, width=min(_WIDTH, columns)).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())
