"""A run's page, report.html: one file that needs nothing else, made from the run's folder and from nothing else.

Everything that came from rows, models or arguments is text: the template escapes it, and the page's own policy (Content-Security-Policy)
lets no script run but the four whose hashes it names, and loads nothing.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import bokeh
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from paddlealign.arguments.paths import PAGE_FILE
from paddlealign.models.tensor_files import write_bytes
from paddlealign.report.argument_tables import arguments_of, differences
from paddlealign.report.charts import charts_of, lost_points
from paddlealign.report.curve_statistics import LEAST_ROWS
from paddlealign.report.facts import environment_of, facts_of, hashes_of, splits_of, state_of, title_of
from paddlealign.report.histograms import margin_histograms, shared_bins
from paddlealign.report.remedies import Run
from paddlealign.report.run_files import RunFiles, read_run
from paddlealign.report.sample_table import means, sample_table
from paddlealign.report.watch import findings, more_lines

ASSETS = Path(__file__).parent / "page"
_REST = "style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'; base-uri 'none'"
MARK = '<meta name="generator" content="PaddleAlign">'


def write_page(folder: Path) -> Path:
    """Write the page of the run in ``folder`` beside it, atomically. Returns its path. Raises UserError and OSError."""
    path = folder / PAGE_FILE
    write_bytes(path, render([read_run(folder)]).encode("utf-8", errors="replace"))
    return path


def render(runs: Sequence[RunFiles], live: bool = False) -> str:
    """The page of one run, or of several side by side. live: for ``serve``: it asks its server whether there is a newer one."""
    alone = runs[0] if len(runs) == 1 else None
    splits = splits_of(alone) if alone else []
    margins = margin_histograms(alone.margins) if alone else margins_together(runs)
    charts = charts_of(runs)
    histograms = margins + [chart for split in splits for chart in split["charts"]]
    samples = sample_table(alone) if alone else None
    scripts = _scripts()
    policy = f"default-src 'none'; script-src {' '.join(map(_source, scripts))}; {_REST}"
    return _template().render(
        mark=Markup(MARK),
        policy=policy + ("; connect-src 'self'" if live else ""),
        style=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        title=title_of(alone) if alone else f"{len(runs)} runs side by side",
        runs=[
            {
                "name": run.name,
                "title": title_of(run),
                "state": state_of(run),
                "finished": bool(run.run.get("finished")),
                "facts": facts_of(run),
                "findings": _told(run),
                "lost": lost_points(run),
                "environment": environment_of(run),
                "hashes": hashes_of(run),
                "trained": len(run.columns["loss"].steps) if "loss" in run.columns else 0,
                "more_lines": _more_lines(run),
            }
            for run in runs
        ],
        least_rows=LEAST_ROWS,
        alone=alone is not None,
        arguments=arguments_of(alone) if alone else [],
        differences=differences(runs) if not alone else [],
        charts=charts,
        margins=len(margins),
        splits=splits,
        samples=samples,
        sample_means=[means([row.before for row in samples.rows]), means([row.after for row in samples.rows])] if samples else [],
        data={"runs": [run.name for run in runs], "charts": charts, "histograms": histograms, "live": live},
    )


def margins_together(runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """The reward margins of several runs, each at its last evaluation, over the same bins."""
    last = {run.name: run.margins[max(run.margins)].get("rewards/margins", []) for run in runs if run.margins}
    bins = shared_bins(last)
    return [{"title": "Reward margin of the dev pairs", "unit": "at each run's last evaluation", **bins}] if bins else []


def _more_lines(run: RunFiles) -> str:
    try:
        return more_lines(Run(run.run["command"], run.run.get("total_steps") or run.last_step, run.arguments))
    except KeyError:  # as below
        return "logging_steps"


def _told(run: RunFiles) -> list[dict[str, Any]]:
    """What the curves say: as run.json has it, else found anew, as for a run that was broken off."""
    if "findings" in run.run:
        return list(run.run["findings"])
    try:
        total = run.run.get("total_steps") or run.last_step
        return [asdict(it) for it in findings(run.log_rows(), Run(run.run["command"], total, run.arguments))]
    except KeyError:  # a run of an earlier version lacks a key that a rule reads
        return []


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["value"] = _value
    return environment.get_template("page.html.jinja")


def _value(value: Any) -> str:
    """A value as it is typed behind its key."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


@cache
def _scripts() -> list[str]:
    """The scripts of the page, in their order: BokehJS as its Python package brings it, and ours."""
    library = Path(bokeh.__file__).parent / "server" / "static" / "js"
    files = [library / "bokeh.min.js", library / "bokeh-api.min.js", ASSETS / "charts.js", ASSETS / "page.js"]
    scripts = [file.read_text(encoding="utf-8") for file in files]
    for file, script in zip(files, scripts, strict=True):
        if "</script" in script:
            raise ValueError(f"{file} cannot stand within a page: it holds </script")
    return scripts


def _source(script: str) -> str:
    """A script as the policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
