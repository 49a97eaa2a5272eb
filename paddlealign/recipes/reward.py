"""Reward modelling (Ouyang et al. 2022), from the arguments to a model that scores answers."""

import hashlib
import math
from dataclasses import replace

import numpy as np

from paddlealign.arguments.results import RewardArguments
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.score_head import initialise_score, with_score_head
from paddlealign.parallel.sharding import Sharding
from paddlealign.parallel.stopping import StopRequest
from paddlealign.recipes.adapter import with_adapter
from paddlealign.recipes.check import check_run
from paddlealign.recipes.device import say
from paddlealign.recipes.heads import need_score_head
from paddlealign.recipes.padding import choose_pad_token, with_pad_token
from paddlealign.recipes.resuming import check_resume
from paddlealign.recipes.rows import Rows, check_shared_prompts, prepare_rows, vocabulary_size
from paddlealign.recipes.run import Start, adapter_hashes, agree_on_run, begin, load_policy, make_task, run_of, train
from paddlealign.training.folder_lock import FolderLock
from paddlealign.training.objective import reward_objective
from paddlealign.training.reference import table_reference


def run(arguments: RewardArguments, request: StopRequest, lock: FolderLock) -> None:
    """Learn to score the chosen answer of each pair above the rejected one. request, lock, errors: as ``sft.run``."""
    start = begin(arguments, request, lock)
    stored = read_config(arguments.model.model_name_or_path)
    if not arguments.training.do_train:
        need_score_head(with_adapter(stored, arguments.adapter.lora_path), "model_name_or_path")
    rows = prepare_rows(arguments, "preference")
    check_shared_prompts(rows, stored, "model_name_or_path")
    margins = {split: examples.margins.astype(np.float32) for split, examples in (("train", rows.train), ("dev", rows.dev))}
    for split, of_pairs in margins.items():
        if of_pairs.any():
            given = np.count_nonzero(of_pairs)
            say(f"{split}: {given:,} of {len(of_pairs):,} pairs have a margin, {of_pairs.min():g} to {of_pairs.max():g}")
    hashes = {**rows.hashes, **adapter_hashes(arguments), "margins": hashlib.sha256(margins["train"].tobytes()).hexdigest()}
    agree_on_run(arguments, start, hashes)
    size = vocabulary_size(arguments, rows, stored)
    pad_token, pad_id = choose_pad_token(rows.tokenizer, [rows.end_id], stored.source.get("pad_token_id", -1), size)
    policy, sharding = load_reward_policy(arguments, start, rows, stored, pad_id)
    coefficient = arguments.objective.center_rewards_coefficient
    objective, dev_objective = (reward_objective(table_reference(margins[split]), coefficient) for split in ("train", "dev"))
    task = make_task(arguments, start, rows, policy, sharding, objective, dev_objective)
    task = replace(task, side_files=with_pad_token(task.side_files, rows.tokenizer, pad_token))
    if arguments.training.check:
        check_resume(arguments, start.resume, run_of(arguments, start, task, hashes))
        check_run(arguments, start, task, rows)
        return
    train(arguments, start, task, hashes, rows)


def load_reward_policy(
    arguments: RewardArguments, start: Start, rows: Rows, stored: DecoderConfig, pad_id: int
) -> tuple[Decoder, Sharding]:
    """Read the model that training starts from; a language model's head gives way to the adapter's score head, or to a new one."""
    policy, sharding = load_policy(arguments, start, rows, with_score_head(stored, pad_id))
    if with_adapter(stored, arguments.adapter.lora_path).head != "score":
        seed, deviation = arguments.training.seed, 1 / math.sqrt(stored.hidden_size + 1)
        if policy.model.is_last:
            initialise_score(policy.score, seed)
        say(f"score head: new, drawn with a standard deviation of {deviation:.4f} (seed {seed}); the language head is not used")
    return policy, sharding
