"""``python reward_main.py [ARGS.json] [--key value ...]``: a reward model from preference pairs."""

import sys

from paddlealign.recipes.entry import main

if __name__ == "__main__":
    sys.exit(main("reward"))
