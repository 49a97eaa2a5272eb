"""Render the package's docstrings as pages, with the source beside them: ``python -m scripts.api_pages output/api``.

It needs requirements-dev.txt. A warning of the generator is an error: it ends with 1 and what was said.
"""

import sys
import warnings
from pathlib import Path

from paddlealign.machine import prepare

prepare()

# Before pdoc, which lets nothing be started while it imports: Paddle asks ldd for a version then.
import paddle
import pdoc
import pdoc.render


def main(folder: Path) -> int:
    """Write the pages into a folder. Returns 1 where the generator warned."""
    pdoc.render.configure(docformat="google", footer_text=f"PaddleAlign, on Paddle {paddle.__version__}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc("paddlealign", output_directory=folder)
    told = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    print(*told, f"{len(list(folder.rglob('*.html')))} pages in {folder}, {len(told)} warnings", sep="\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
