"""Supervised fine-tuning, from the arguments to the fine-tuned model."""

from dataclasses import replace

from paddlealign.arguments.results import SftArguments
from paddlealign.parallel.stopping import StopRequest
from paddlealign.recipes.check import check_run
from paddlealign.recipes.resuming import check_resume
from paddlealign.recipes.rows import prepare_rows
from paddlealign.recipes.run import adapter_hashes, agree_on_run, begin, load_policy, make_task, run_of, train
from paddlealign.recipes.sampling import Sampler, find_judges, find_prompts
from paddlealign.training.folder_lock import FolderLock
from paddlealign.training.objective import sft_objective


def run(arguments: SftArguments, request: StopRequest, lock: FolderLock) -> None:
    """Fine-tune on the responses' cross-entropy. request: what signals ask of this process. lock: on output_dir.

    Raises UserError, and Stopped.
    """
    start = begin(arguments, request, lock)
    rows = prepare_rows(arguments, "sft", arguments.objective.score_turns)
    prompts = find_prompts(arguments, rows)
    hashes = {**rows.hashes, **adapter_hashes(arguments), **(prompts.hashes if prompts else {})}
    agree_on_run(arguments, start, hashes)
    judges = find_judges(arguments, start.device, unanswered="SFT has no reference")
    policy, sharding = load_policy(arguments, start, rows)
    objective = sft_objective()
    task = make_task(arguments, start, rows, policy, sharding, objective, objective)
    if prompts and judges:
        task = replace(task, sample=Sampler(arguments, start, rows, policy, prompts, judges, reference=None))
    if arguments.training.check:
        check_resume(arguments, start.resume, run_of(arguments, start, task, hashes))
        check_run(arguments, start, task, rows)
        return
    train(arguments, start, task, hashes, rows)
