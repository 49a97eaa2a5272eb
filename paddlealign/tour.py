"""``python -m paddlealign.tour``: check, SFT, DPO, the pages and a chat on the bundled model, step by step, each explained."""

import sys

from paddlealign.recipes.tour import main

if __name__ == "__main__":
    sys.exit(main())
