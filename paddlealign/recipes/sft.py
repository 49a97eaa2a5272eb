"""Supervised fine-tuning, from the arguments to the fine-tuned model."""

from paddlealign.arguments.results import SftArguments
from paddlealign.parallel.stopping import StopRequest
from paddlealign.recipes.check import check_run
from paddlealign.recipes.rows import prepare_rows
from paddlealign.recipes.run import adapter_hashes, agree_on_run, begin, check_resume, load_policy, make_task, train
from paddlealign.training.objective import sft_objective


def run(arguments: SftArguments, request: StopRequest) -> None:
    """Fine-tune on the responses' cross-entropy. request: what signals ask of this process. Raises UserError, and Stopped."""
    start = begin(arguments, request)
    rows = prepare_rows(arguments, "sft", arguments.objective.score_all_turns)
    hashes = {**rows.hashes, **adapter_hashes(arguments)}
    agree_on_run(arguments, start, hashes)
    policy, sharding = load_policy(arguments, start, rows)
    objective = sft_objective()
    task = make_task(arguments, start, rows, policy, sharding, objective, objective)
    if arguments.training.check:
        check_resume(arguments, start, hashes)
        check_run(arguments, task, rows.train or rows.dev, rows.tokenizer, reference=None)
        return
    train(arguments, start, task, hashes)
