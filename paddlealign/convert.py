"""``python -m paddlealign.convert FILE_OR_FLAGS -o ARGS.json``: another tool's configuration as an argument file of ours."""

import sys

from paddlealign.recipes.convert import main

if __name__ == "__main__":
    sys.exit(main())
