"""Whether a step's numbers can be used, and what is said where they cannot, or are far from the usual: always with the step's rows."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paddlealign.arguments.fields import TrainingArguments
from paddlealign.arguments.paths import INCIDENTS_FILE
from paddlealign.data.example import Batch
from paddlealign.parallel.collect import gather_values
from paddlealign.parallel.topology import Topology
from paddlealign.training.checkpoint import TrainState
from paddlealign.training.progress import Progress
from paddlealign.training.run_log import IncidentLog

# So many float16 steps in a row may overflow while the loss scaler looks for its scale.
MOST_OVERFLOWS = 24
# So many steps in a row may be left out under on_bad_numbers skip.
MOST_SKIPPED = 10
# The exit code of a run that ends at a step whose numbers are not finite.
BAD_NUMBERS_CODE = 3
# A spike is so many standard deviations, and so large a share of the usual loss, above the median of the last steps' losses.
SPIKE_ERRORS, SPIKE_SHARE, SPIKE_STEPS, LEAST_STEPS = 8.0, 0.5, 100, 20
_SHOWN_ROWS, _SHOWN_SPIKES = 6, 5

Verdict = Literal["use", "skip", "stop"]


class Guard:
    """Looks at each step of a run. ``why`` holds the words for the last verdict "stop"."""

    def __init__(
        self,
        settings: TrainingArguments,
        state: TrainState,
        topology: Topology,
        scaled: bool,
        source_of: Callable[[int], str] | None,
        progress: Progress,
    ) -> None:
        """state: is kept up to date. scaled: whether a loss scaler looks for its scale. source_of: where an example's row stands."""
        self._settings, self._state, self._topology, self._scaled, self._progress = settings, state, topology, scaled, progress
        self._source_of = source_of
        self._log = IncidentLog(Path(settings.output_dir) if topology.is_main else None, state.step, progress.say)
        self._overflows = self._spikes = 0
        self.why = ""

    def judge(self, step: int, batches: Sequence[Batch], loss: float, norm: float) -> Verdict:
        """What to do with step number ``step`` (1 is the first): the same in all processes, which call it together.

        loss, norm: the step's, over all processes. Where one is not finite the weights must have been left as they were.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            self._overflows = self._state.skipped_in_a_row = 0
            self._look_for_spike(step, batches, loss, norm)
            return "use"
        if math.isfinite(loss) and self._scaled and self._overflows < MOST_OVERFLOWS:
            self._overflows += 1
            return "use"
        rows = self._rows(batches)
        self._log.write({"step": step, "kind": "bad numbers", "loss": loss, "grad_norm": norm, "rows": rows})
        told = f"step {step}: the gradient's norm is {norm} and the loss {loss}"
        of_rows = f"Its rows: {_some(rows)}"
        self._state.skipped += 1
        self._state.skipped_in_a_row += 1
        if self._settings.on_bad_numbers == "skip" and self._state.skipped_in_a_row <= MOST_SKIPPED:
            self._progress.say(f"{told}; left out ({self._state.skipped:,} so far, on_bad_numbers skip). {of_rows}", warns=True)
            return "skip"
        many = f", {MOST_SKIPPED} steps in a row before it were left out" if self._settings.on_bad_numbers == "skip" else ""
        self._state.skipped -= 1
        self._state.skipped_in_a_row = 0
        self.why = (
            f"error: {told}{many}; the weights were left as they were. {of_rows}. --replay_step {step} shows where in the model it begins. "
            "To go on without this step: --resume_from_checkpoint true --on_bad_numbers skip. With a lower learning_rate "
            f"({self._settings.learning_rate:g}) or other rows it is a new run, whose model_name_or_path may be that checkpoint"
        )
        return "stop"

    def _look_for_spike(self, step: int, batches: Sequence[Batch], loss: float, norm: float) -> None:
        usual = usual_loss(self._state.losses, loss)
        if usual is not None:
            rows = self._rows(batches)
            self._log.write({"step": step, "kind": "loss spike", "loss": loss, "usual_loss": usual, "grad_norm": norm, "rows": rows})
            self._spikes += 1
            if self._spikes <= _SHOWN_SPIKES:
                last = f". Further ones are told in {INCIDENTS_FILE} only" if self._spikes == _SHOWN_SPIKES else ""
                self._progress.say(f"step {step}: the loss is {loss:.4f}, usually {usual:.4f}. Its rows: {_some(rows)}{last}", warns=True)
        self._state.losses = [*self._state.losses, loss][-SPIKE_STEPS:]

    def _rows(self, batches: Sequence[Batch]) -> list[Any]:
        """The rows of a step, of all processes: where each stands, or the example's number where that is not known."""
        own = [int(example) for batch in batches for example in batch.example_ids]
        everyone = [example for of_rank in gather_values(self._topology.data, own) for example in of_rank]
        return [example if self._source_of is None else self._source_of(example) for example in everyone]


def usual_loss(losses: Sequence[float], loss: float) -> float | None:
    """The median of the last steps' losses where ``loss`` is a spike above them; None where it is not, or where they are too few.

    Their spread is taken from the median of their distances from it, which other spikes hardly move.
    """
    if len(losses) < LEAST_STEPS:
        return None
    before = np.array(losses, np.float64)
    usual = float(np.median(before))
    spread = 1.4826 * float(np.median(np.abs(before - usual)))
    return usual if loss - usual > max(SPIKE_ERRORS * spread, SPIKE_SHARE * abs(usual)) else None


def _some(rows: Sequence[Any]) -> str:
    """The first of a step's rows, and where the others are told."""
    more = f" and {len(rows) - _SHOWN_ROWS:,} more ({INCIDENTS_FILE} has all)" if len(rows) > _SHOWN_ROWS else ""
    return ", ".join(map(str, rows[:_SHOWN_ROWS])) + more
