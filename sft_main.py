"""``python sft_main.py [ARGS.json] [--key value ...]``: supervised fine-tuning."""

import sys

from paddlealign.recipes.entry import main

if __name__ == "__main__":
    sys.exit(main("sft"))
