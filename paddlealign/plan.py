"""``python -m paddlealign.plan ARGS.json --devices N``: what a training run takes on N devices, and which layout to choose, on paper."""

import sys

from paddlealign.recipes.entry import main

if __name__ == "__main__":
    sys.exit(main("plan"))
