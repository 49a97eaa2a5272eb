"""``python -m paddlealign.arguments docs/arguments.md`` writes the reference of all keys."""

import sys
from pathlib import Path

from paddlealign.arguments.show import reference_page

if len(sys.argv) != 2:
    sys.exit("usage: python -m paddlealign.arguments FILE.md")
Path(sys.argv[1]).write_text(reference_page(), encoding="utf-8")
