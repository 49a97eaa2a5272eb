"""``python -m paddlealign.export [ARGS.json] [--key value ...]``: a model written again, in another dtype or shards, or for PaddleNLP."""

import sys

from paddlealign.recipes.entry import main

if __name__ == "__main__":
    sys.exit(main("export"))
