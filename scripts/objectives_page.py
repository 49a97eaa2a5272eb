"""Hold every preference loss to float64 NumPy and to TRL, and write docs/objectives.md's table from the code and from what was measured.

    python -m scripts.objectives_page docs/objectives.md            measure, and write the table into the page
    python -m scripts.objectives_page docs/objectives.md --check    measure, and fail where the page claims what does not hold

A figure is the largest difference, as a share of the largest value, of the loss and of its gradient with respect to every token's log-prob.
"""

import inspect
import sys
from dataclasses import fields
from pathlib import Path

from paddlealign.machine import prepare

prepare()

from paddlealign.arguments.losses import LOSS_ALIASES, LOSSES, UNPAIRED_LOSSES
from paddlealign.arguments.objective_fields import ObjectiveArguments
from paddlealign.objectives.preference import PREFERENCE_LOSSES
from paddlealign.objectives.unpaired import kto_loss
from tests.preference_oracle import GOLDEN, from_oracle, from_trl, kto_from_oracle, kto_from_trl

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
HEAD = "| loss_type | loss of a pair | paper | keys | reference | needs the whole step | NumPy | TRL |"
LIMIT = 1e-5
# Figures below FLOOR are written as that; on another machine one may be SLACK times worse than the page says.
FLOOR, SLACK = 1e-7, 5.0
EVERY = {**LOSSES, **UNPAIRED_LOSSES}
REFERENCE = {"difference": "yes, or reference_free", "ratios": "yes", "policy": "no"}


def facts(name: str) -> list[str]:
    """The cells of a loss's row that the code tells: names, formula, paper, keys with their defaults, reference, whole step."""
    loss, row = EVERY[name], PREFERENCE_LOSSES.get(name)
    formula, paper = (inspect.getdoc(row.function if row else kto_loss) or "").split("\n\n")[:2]
    defaults = {field.name: field.default for field in fields(ObjectiveArguments)}
    other = "".join(f", `{alias}`" for alias, meant in LOSS_ALIASES.items() if meant == name)
    keys = ", ".join(f"`{key}` {defaults[key]}" for key in loss.reads)
    cells = [f"`{name}`{other}", formula, paper, keys, REFERENCE[loss.compares], "yes" if row is None or row.context else "no"]
    return [" ".join(cell.replace("``", "`").replace("|", "\\|").split()) for cell in cells]


def measure(name: str) -> tuple[float, float | None]:
    """The loss's worst figure against the oracle, and against TRL in the cases that it stands in; None where it stands in none."""
    if name in UNPAIRED_LOSSES:
        return max(map(kto_from_oracle, range(3))), max(map(kto_from_trl, GOLDEN["trl kto"]))
    cases = [case for case, settings in GOLDEN["trl"].items() if name in settings["weights"]]
    return max(from_oracle(name, seed) for seed in range(3)), max(map(from_trl, cases), default=None)


def row(name: str) -> str:
    """The loss's row."""
    figures = [f"{max(figure, FLOOR):.0e}" if figure is not None else "not in TRL" for figure in measure(name)]
    return "| " + " | ".join([*facts(name), *figures]) + " |"


def faults(page: str) -> list[str]:
    """Where the page does not hold: a loss that is not told as the code has it, or a figure beyond the limit or far beyond the page's."""
    lines = page.split(BEGIN)[1].split(END)[0].strip().splitlines()[2:]
    told = {line.split("`")[1]: line for line in lines}
    found = [f"{name} is not in the page and in the code alike" for name in told.keys() ^ EVERY.keys()]
    for name in told.keys() & EVERY.keys():
        if not told[name].startswith("| " + " | ".join(facts(name)) + " | "):
            found.append(f"{name}: the page does not say what the code does")
            continue
        claimed = [cell.strip() for cell in told[name].rsplit("|", 3)[1:3]]
        for claim, figure in zip(claimed, measure(name), strict=True):
            if (claim == "not in TRL") != (figure is None):
                found.append(f"{name}: whether TRL has it is told wrongly")
            elif figure is not None and not figure <= min(LIMIT, SLACK * float(claim)):
                found.append(f"{name}: {figure:.1e}; the page says {claim}, the limit is {LIMIT:.0e}")
    return found


def main(path: Path, check: bool) -> int:
    """Write the page's table, or hold the page to the code and the measurements."""
    page = path.read_text("utf-8")
    if not check:
        table = "\n".join([HEAD, "|---|---|---|---|---|---|---:|---:|", *map(row, EVERY)])
        page = page.split(BEGIN)[0] + f"{BEGIN}\n{table}\n{END}" + page.split(END)[1]
        path.write_text(page, "utf-8")
    found = faults(page)
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--check" in sys.argv[2:]))
