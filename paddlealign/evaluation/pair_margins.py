"""Margins of the dev pairs at an evaluation: ``output_dir/margins/step-<N>.json``, from which the run's page draws histograms.

The file is {name: values}: of each name a margin (chosen less rejected) for each pair, rising. So it does not depend on who computed which
pair; of more than MOST pairs it has MOST quantiles, the lowest and the highest among them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddlealign.arguments.paths import MARGINS_FOLDER
from paddlealign.evaluation.step_files import drop_later
from paddlealign.models.tensor_files import write_json

MOST = 2000


def summarise_margins(values: np.ndarray, most: int = MOST) -> list[float]:
    """Values in rising order with 6 digits, or ``most`` of them evenly spaced; those that are not finite are left out."""
    rising = np.sort(np.asarray(values, np.float64)[np.isfinite(values)])
    if len(rising) > most:
        rising = rising[np.linspace(0, len(rising) - 1, most).round().astype(np.int64)]
    return [float(f"{value:.6g}") for value in rising.tolist()]


def write_margins(output_dir: Path, step: int, margins: Mapping[str, np.ndarray]) -> None:
    """Write the margins of a step, atomically. margins: float [pairs] by name; without any there is no file. Raises OSError."""
    if margins:
        (output_dir / MARGINS_FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(margins_file(output_dir, step), {name: summarise_margins(values) for name, values in margins.items()})


def margins_file(output_dir: Path, step: int) -> Path:
    """Where the margins of a step lie."""
    return output_dir / MARGINS_FOLDER / f"step-{step}.json"


def drop_margins(output_dir: Path, after: int) -> None:
    """Remove the margins of later steps than ``after``, which a run that goes on from there leaves behind."""
    drop_later(output_dir / MARGINS_FOLDER, ".json", after)
