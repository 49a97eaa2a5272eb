"""The page of a run that goes on: kept up to date beside the run log, and never a reason for the run to end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from paddlealign.arguments.paths import PAGE_FILE, RUN_FILE
from paddlealign.evaluation.pair_margins import write_margins
from paddlealign.machine import give_back_freed_memory
from paddlealign.models.tensor_files import write_json
from paddlealign.report.page import write_page
from paddlealign.report.watch import Finding


class RunPage:
    """Writes ``output_dir/report.html`` from what lies in output_dir. What cannot be written is told once, and the run goes on."""

    def __init__(self, output_dir: Path, run: Mapping[str, Any], tell: Callable[[str], None]) -> None:
        """run: what run.json has of an unfinished run. tell: is told what cannot be written."""
        self._output_dir, self._run, self._tell = output_dir, run, tell
        self._kept = 0
        self._told = False

    def keep_margins(self, step: int, margins: Mapping[str, np.ndarray]) -> None:
        """See ``write_margins``."""
        with self._never_ends_a_run():
            write_margins(self._output_dir, step, margins)

    def refresh(self, findings: Sequence[Finding]) -> None:
        """Write the page of the run as it is now. findings: so far; run.json has them, too, so that the page follows from the folder."""
        with self._never_ends_a_run():
            if len(findings) > self._kept:
                write_json(self._output_dir / RUN_FILE, {**self._run, "findings": [asdict(it) for it in findings]})
                self._kept = len(findings)
            self.finish()

    def finish(self) -> None:
        """Write the page; run.json is as it is."""
        with self._never_ends_a_run():
            write_page(self._output_dir)
            give_back_freed_memory()

    @contextmanager
    def _never_ends_a_run(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, a page is not worth a run
            if not self._told:
                self._tell(f"note: {self._output_dir / PAGE_FILE} cannot be written: {error}; the run goes on, and its log is whole")
            self._told = True
