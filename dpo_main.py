"""``python dpo_main.py [ARGS.json] [--key value ...]``: direct preference optimization."""

import sys

from paddlealign.recipes.entry import main

if __name__ == "__main__":
    sys.exit(main("dpo"))
