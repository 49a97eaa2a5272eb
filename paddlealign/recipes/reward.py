"""Reward modelling (Ouyang et al. 2022), from the arguments to a model that scores answers."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from paddlealign.arguments.results import RewardArguments
from paddlealign.data.example import Example
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.score_head import initialise_score, with_score_head
from paddlealign.parallel.sharding import Sharding
from paddlealign.parallel.stopping import StopRequest
from paddlealign.recipes.check import check_run
from paddlealign.recipes.device import say
from paddlealign.recipes.heads import need_score_head
from paddlealign.recipes.rows import Rows, check_shared_prompts, prepare_rows, vocabulary_size
from paddlealign.recipes.run import Start, agree_on_run, begin, check_resume, load_policy, make_task, train
from paddlealign.training.objective import reward_objective
from paddlealign.training.reference import table_reference


def run(arguments: RewardArguments, request: StopRequest) -> None:
    """Learn to score the chosen answer of each pair above the rejected one. request, errors: as ``sft.run``."""
    if arguments.adapter.lora:
        raise UserError("lora: a reward model is trained whole in this version. Leave the key out.")
    start = begin(arguments, request)
    stored = read_config(arguments.model.model_name_or_path)
    if not arguments.training.do_train:
        need_score_head(stored, "model_name_or_path")
    rows = prepare_rows(arguments, "preference", score_all_turns=False)
    check_shared_prompts(rows, stored, "model_name_or_path")
    margins = {split: margins_of(examples) for split, examples in (("train", rows.train), ("dev", rows.dev))}
    for split, of_pairs in margins.items():
        if of_pairs.any():
            given = np.count_nonzero(of_pairs)
            say(f"{split}: {given:,} of {len(of_pairs):,} pairs have a margin, {of_pairs.min():g} to {of_pairs.max():g}")
    hashes = {**rows.hashes, "margins": hashlib.sha256(margins["train"].tobytes()).hexdigest()}
    agree_on_run(arguments, start, hashes)
    pad_token, pad_id = choose_pad_token(rows, stored.source.get("pad_token_id", -1), vocabulary_size(arguments, rows, stored))
    policy, sharding = load_reward_policy(arguments, start, rows, stored, pad_id)
    coefficient = arguments.objective.center_rewards_coefficient
    objective, dev_objective = (reward_objective(table_reference(margins[split]), coefficient) for split in ("train", "dev"))
    task = make_task(arguments, start, rows, policy, sharding, objective, dev_objective)
    task = replace(task, side_files=with_pad_token(task.side_files, rows.tokenizer, pad_token))
    if arguments.training.check:
        check_resume(arguments, start, hashes)
        check_run(arguments, task, rows.train or rows.dev, rows.tokenizer, reference=None)
        return
    train(arguments, start, task, hashes)


def margins_of(examples: Sequence[Example]) -> np.ndarray:
    """The pairs' margins: float32 [examples]."""
    return np.array([example.margin for example in examples], np.float32)


def load_reward_policy(
    arguments: RewardArguments, start: Start, rows: Rows, stored: DecoderConfig, pad_id: int
) -> tuple[Decoder, Sharding]:
    """Read the model that training starts from; a language model's head gives way to a new score head."""
    policy, sharding = load_policy(arguments, start, rows, with_score_head(stored, pad_id))
    if stored.head != "score":
        seed, deviation = arguments.training.seed, 1 / math.sqrt(stored.hidden_size + 1)
        if policy.model.is_last:
            initialise_score(policy.score, seed)
        say(f"score head: new, drawn with a standard deviation of {deviation:.4f} (seed {seed}); the language head is not used")
    return policy, sharding


def choose_pad_token(rows: Rows, stored_id: int | None, vocab_size: int) -> tuple[str, int]:
    """A token of the model's vocabulary to pad with that ends no answer, as text and id. Raises UserError where there is none.

    transformers reads the score at the last token that is not padding. Where the end token pads, as many tokenizers have it, it would read
    one token before the end, where no score was trained. stored_id: the token that config.json names. It comes first, then those that the
    tokenizer names, then any special token.
    """
    tokenizer = rows.tokenizer
    special = {index: text for text, index in tokenizer.special_tokens.items()}
    named = [tokenizer.named_tokens.get(key) for key in ("pad_token", "unk_token", "bos_token")]
    for text in (special.get(-1 if stored_id is None else stored_id), *named, *special.values()):
        index = None if text is None else tokenizer.model.token_to_id(text)
        if text is not None and index is not None and index != rows.end_id and index < vocab_size:
            return text, index
    raise UserError(
        f"{tokenizer.folder}: the only special token is the one that ends answers, so nothing could pad a batch of the saved reward model. "
        "Add a pad_token to the tokenizer (and set resize_vocab where the model has no row for it)."
    )


def with_pad_token(files: Mapping[str, bytes], tokenizer: Tokenizer, pad_token: str) -> dict[str, bytes]:
    """A tokenizer's files that name the pad token which the saved config.json means."""
    before = tokenizer.named_tokens.get("pad_token")
    if before == pad_token:
        return dict(files)
    say(f"note: the saved tokenizer pads with {pad_token}{f' in place of {before}' if before else ''}, a token that ends no answer")
    changed = {"tokenizer_config.json": files.get("tokenizer_config.json", b"{}")}
    changed |= {name: content for name, content in files.items() if name == "special_tokens_map.json"}
    return {**files, **{name: _with_key(content, "pad_token", pad_token) for name, content in changed.items()}}


def _with_key(content: bytes, key: str, value: str) -> bytes:
    """A JSON object's text with a key set."""
    return (json.dumps({**json.loads(content), key: value}, indent=2, ensure_ascii=False) + "\n").encode()
