"""Write docs/files.md's tables from the first words of every file of the package, or hold the page to them.

python -m scripts.files_page docs/files.md            write the tables
python -m scripts.files_page docs/files.md --check    fail where the page does not say what the files say
"""

import ast
import sys
from pathlib import Path

from scripts.marks import fill, split

ROOT = Path(__file__).resolve().parents[1]
# From the method down to what the user says.
FOLDERS = (
    "recipes",
    "report",
    "evaluation",
    "planning",
    "training",
    "models",
    "parallel",
    "objectives",
    "data",
    "arguments",
    "arguments/dialects",
    "messages",
)


def first_words(path: Path) -> str:
    """The first paragraph of a file's docstring, without its full stop."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return " ".join(text.split()).rstrip(".").replace("|", "\\|")


def tables(package: Path) -> str:
    """A table for each folder, and one for the files beside the folders. Raises AssertionError for a folder that is in no table."""
    known = {package / name for name in FOLDERS} | {package}
    lost = {path.parent for path in package.rglob("*.py")} - known
    if lost:
        raise AssertionError(f"name these in FOLDERS: {sorted(map(str, lost))}")
    parts = []
    for name in (*FOLDERS, ""):
        folder = package / name
        title = f"{folder.relative_to(package.parent)}/"
        about = first_words(folder / "__init__.py") if name else "Beside the folders"
        rows = [f"| `{path.name}` | {first_words(path)} |" for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        parts.append("\n".join([f"## {title}", "", f"{about}.", "", "| file | what it does |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def main(path: Path, check: bool) -> int:
    """Write the tables into the page, or say that it is not as the files have it."""
    written = tables(ROOT / "paddlealign")
    if not check:
        fill(path, "tables", written)
    elif split(path, "tables")[1] != written:
        print(f"{path} is not what the files say; run: python -m scripts.files_page docs/files.md")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--check" in sys.argv[2:]))
