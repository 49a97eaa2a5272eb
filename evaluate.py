"""``python evaluate.py rewards [ARGS.json] [--key value ...]``: a reward model's scores of a file's rows."""

import sys

from paddlealign.recipes.entry import main_of_task

if __name__ == "__main__":
    sys.exit(main_of_task("evaluate.py", {"rewards": "evaluate_rewards"}))
