"""``python evaluate.py TASK [ARGS.json] [--key value ...]``: what a model is worth, by TASK: rewards, perplexity, judge, compare."""

import sys

from paddlealign.arguments.results import Command
from paddlealign.recipes.entry import main_of_task

TASKS: dict[str, Command] = {
    "rewards": "evaluate_rewards",
    "perplexity": "evaluate_perplexity",
    "judge": "evaluate_judge",
    "compare": "evaluate_compare",
}

if __name__ == "__main__":
    sys.exit(main_of_task("evaluate.py", TASKS))
