"""A folder like the repository's, with few rows, in which its commands are run as they stand."""

from pathlib import Path

from tests.pages import ROOT

ROWS = {"sft/train.json": 16, "sft/dev.json": 4, "dpo/train.json": 16, "dpo/dev.json": 4, "heldout.json": 4}


def make_home(folder: Path) -> Path:
    """Make the folder's contents; links where nothing is written. Returns it."""
    (folder / "scripts").symlink_to(ROOT / "scripts")
    for script in ROOT.glob("*.py"):
        (folder / script.name).symlink_to(script)
    for name, count in ROWS.items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        lines = (ROOT / "data" / name).read_text(encoding="utf-8").splitlines()
        (folder / "data" / name).write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
    (folder / "data" / "base_model").symlink_to(ROOT / "data" / "base_model")
    return folder
