"""``python predict.py [ARGS.json] [--key value ...]``: completions for a file of rows, or a chat."""

import sys

from paddlealign.recipes.entry import main

if __name__ == "__main__":
    sys.exit(main("predict"))
