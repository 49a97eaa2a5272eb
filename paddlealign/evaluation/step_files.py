"""Files of which a run writes one a step, ``step-<N>`` and an ending, into a folder of their own."""

import re
from pathlib import Path


def drop_later(folder: Path, ending: str, after: int) -> None:
    """Remove those of later steps than ``after``, which a run that goes on from there leaves behind. ending: as ".json"."""
    for path in folder.glob(f"step-*{ending}"):
        found = re.fullmatch(rf"step-(\d+){re.escape(ending)}", path.name)
        if found and int(found[1]) > after:
            path.unlink()
