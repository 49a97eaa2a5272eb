"""Answers during training: the policy, as it is at a step, on the same prompts each time; beside it in DPO the reference's.

Nothing of this touches what is trained: no gradient, no random number of Paddle's, no dropout.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from paddle import Tensor

from paddlealign.arguments.results import DpoArguments, SftArguments
from paddlealign.data.encoding import Limits, encode, encode_prompt
from paddlealign.data.encoding_report import Encoded
from paddlealign.data.example import Record
from paddlealign.data.records import read_records
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.evaluation.samples import (
    prompt_columns,
    read_references,
    response_length,
    sample_rows,
    samples_file,
    show_samples,
    summarise_samples,
)
from paddlealign.evaluation.winners import outcomes_of
from paddlealign.models.attention import Attend
from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.generation import generate
from paddlealign.models.incremental import Forward
from paddlealign.models.parameters import parameter_shapes
from paddlealign.models.sampling import GenerationSettings
from paddlealign.models.tensor_files import write_json_lines
from paddlealign.parallel.collect import from_holder, gather_values
from paddlealign.parallel.pipeline import Chain
from paddlealign.parallel.topology import Topology
from paddlealign.recipes.chat import prompt_limit
from paddlealign.recipes.device import say
from paddlealign.recipes.heads import need_score_head
from paddlealign.recipes.judge_function import Judge, call_judge, load_judge
from paddlealign.recipes.predict import decode_answer
from paddlealign.recipes.processes import staged_forward
from paddlealign.recipes.rows import Rows, vocabulary_size
from paddlealign.recipes.run import Start
from paddlealign.recipes.scoring import Pace, Scorer, find_scorer, reward_scores
from paddlealign.training.precision import Precision
from paddlealign.training.task import Sampled

# Who answers as the reference: a model, the policy before its first step, or nobody.
Answering = Decoder | Literal["policy"] | None
Judged = TypeVar("Judged")


@dataclass(frozen=True)
class Prompts:
    """What is answered. ids: each record's prompt in the policy's tokens. settings: how the answers are generated."""

    records: list[Record]
    ids: list[list[int]]
    settings: GenerationSettings

    @property
    def hashes(self) -> dict[str, str]:
        """For run.json, and for the other processes, which must have the same."""
        return {"sampled prompts": hashlib.sha256(json.dumps(self.ids).encode()).hexdigest()}


@dataclass(frozen=True)
class Judges:
    """What is said of the answers beside their length. judge: a function of the user's, by the name in sample_judge."""

    reward_model: "RewardModel | None"
    judge: Judge | None
    name: str


@dataclass(frozen=True)
class RewardModel:
    """A model that scores answers and is read for each evaluation, with its own tokenizer."""

    scorer: Scorer
    tokenizer: Tokenizer


def find_prompts(arguments: SftArguments | DpoArguments, rows: Rows) -> Prompts | None:
    """The first different prompts of sample_data_file, or of the dev rows, that leave room for an answer; None where none are asked for."""
    samples, data = arguments.samples, arguments.data
    if not samples.sample_during_eval:
        return None
    config = read_config(arguments.model.model_name_or_path)
    template = load_template(rows.tokenizer, data.chat_template)
    limit = prompt_limit(data.src_length, samples.sample_max_length, config.max_positions)
    source = samples.sample_data_file or "the dev rows"
    records = read_records([Path(samples.sample_data_file)], "prompt")[0] if samples.sample_data_file else rows.dev_records()
    chosen: dict[str, tuple[Record, list[int]]] = {}
    long = 0
    for record in records:
        name = json.dumps(prompt_columns(record))
        if len(chosen) == samples.n_eval_model_samples:
            break
        if name not in chosen:
            ids = [int(index) for index in encode_prompt(record, rows.tokenizer, template).ids]
            long += len(ids) > limit
            if record.messages and 0 < len(ids) <= limit:
                chosen[name] = (record, ids)
    if not chosen:
        raise UserError(
            f"sample_during_eval: no prompt of {source} has 1 to {limit} tokens (src_length, and the room for an answer). Raise "
            "src_length, lower sample_max_length, or set sample_data_file to a file of prompts."
        )
    if long:
        say(f"samples: left out {long} prompts longer than {limit} tokens (src_length, and the room for an answer)")
    prompts = [ids for _, ids in chosen.values()]
    highest, size = max(max(ids) for ids in prompts), vocabulary_size(arguments, rows, config)
    if highest >= size:
        raise UserError(f"sample_data_file: the tokenizer gives token {highest}, but the model has {size} tokens. Set resize_vocab.")
    lengths = [len(ids) for ids in prompts]
    few = f" of {samples.n_eval_model_samples} asked for" if len(prompts) < samples.n_eval_model_samples else ""
    say(f"samples: {len(prompts)} prompts{few} from {source}, of {min(lengths)} to {max(lengths)} tokens")
    settings = GenerationSettings(
        max_new_tokens=samples.sample_max_length,
        stop_ids=tuple(dict.fromkeys([*template.stop_ids, rows.end_id])),
        do_sample=samples.sample_temperature > 0,
        temperature=samples.sample_temperature or 1.0,
        seed=arguments.training.seed,
    )
    return Prompts([record for record, _ in chosen.values()], prompts, settings)


def find_reward_model(arguments: SftArguments | DpoArguments, device: str) -> RewardModel | None:
    """Look at the files of sample_reward_model, if there is one: what is missing or does not fit is told before training."""
    folder, key = arguments.samples.sample_reward_model, "sample_reward_model"
    if folder is None:
        return None
    scorer = find_scorer(key, folder, need_score_head, arguments.model.allow_pickle, "auto", device)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.size > scorer.config.vocab_size:
        raise UserError(f"{key}: the tokenizer in {folder} has {tokenizer.size} tokens, but the model {scorer.config.vocab_size}.")
    size = sum(map(math.prod, parameter_shapes(scorer.config).values())) * (4 if scorer.dtype == "float32" else 2) / 1e9
    say(f"samples: {folder} scores them; it takes {size:.2f} GB ({scorer.dtype}) of process 0 while it does, and none between")
    return RewardModel(scorer, tokenizer)


def find_judges(arguments: SftArguments | DpoArguments, device: str, unanswered: str | None) -> Judges | None:
    """Look at what judges the sampled answers, before anything that takes long; None where nothing is sampled. Raises UserError.

    unanswered: why the reference gives no answers to hold them to; None where it does.
    """
    if not arguments.samples.sample_during_eval:
        return None
    name = arguments.samples.sample_judge
    if name and unanswered:
        raise UserError(
            f"sample_judge {name} holds each answer to the reference's, and there is none: {unanswered}. Leave it out, or compare files of "
            "answers with evaluate.py judge."
        )
    return Judges(find_reward_model(arguments, device), load_judge(name, "sample_judge") if name else None, name or "")


class Sampler:
    """Lets the policy answer the prompts at a step, and writes, scores and sums up its answers."""

    def __init__(
        self,
        arguments: SftArguments | DpoArguments,
        start: Start,
        rows: Rows,
        policy: Decoder,
        prompts: Prompts,
        judges: Judges,
        reference: Answering,
    ) -> None:
        """Raises UserError where the layout and the model cannot sample."""
        if policy.make.positions > 1 and policy.config.rope.kind == "dynamic":
            raise UserError(
                "sample_during_eval with sequence_parallel: this model's rope type is dynamic, whose angles depend on a text's length, and "
                "sequence_parallel generates texts as one row. Set one of the two to false."
            )
        self._policy, self._prompts, self._reference, self._tokenizer = policy, prompts, reference, rows.tokenizer
        self._output_dir = Path(arguments.training.output_dir)
        self._batch_size = arguments.training.per_device_eval_batch_size
        self._topology = start.topology
        self._together = arguments.training.sharding == "stage3"
        self._forward = live_forward(start.precision, start.topology, start.chain, self._together)
        self._judges = judges
        self._columns = [prompt_columns(record) for record in prompts.records]
        self._references = read_references(self._output_dir, self._columns) if start.resume and reference is not None else None
        if start.resume and reference == "policy" and self._references is None:
            say("samples: the reference's answers are left out, since the policy is past its start and gave none to these prompts then")

    def __call__(self, step: int) -> Sampled:
        """Answer, write ``samples/step-<step>.jsonl`` and give its figures. All processes call it; only the first has figures to give."""
        answers = self._answer(self._policy)
        if self._references is None:
            self._references = self._refer(answers if step == 0 else None)
        if not self._topology.is_main:
            return Sampled({}, "", [])
        responses = [self._text(answer) for answer in answers]
        lengths = [response_length(answer, self._prompts.settings.stop_ids) for answer in answers]
        scores = self._unless_it_fails(step, lambda: self._scores(responses))
        verdicts = self._unless_it_fails(step, lambda: self._verdicts(responses))
        rows = sample_rows(self._columns, responses, lengths, self._references, scores, verdicts)
        path = samples_file(self._output_dir, step)
        write_json_lines(path, rows)
        return Sampled(summarise_samples(rows), *show_samples(path, step, rows))

    def _refer(self, first: list[list[int]] | None) -> list[str] | None:
        """What the reference answers, where it can. first: the policy's answers before its first step, which may be the reference's."""
        answers = first if self._reference == "policy" else self._answer(self._reference) if self._reference is not None else None
        return None if answers is None else [self._text(answer) for answer in answers]

    def _unless_it_fails(self, step: int, judge: Callable[[], Judged]) -> Judged | None:
        """What ``judge`` gives. It may stop a run that has not begun; later its failure is told, and costs this step's figures only."""
        try:
            return judge()
        except (UserError, OSError) as error:
            if step == 0:
                raise
            say(f"warning: the answers of step {step} are kept without its figures, and training goes on: {error}")
            return None

    def _scores(self, responses: Sequence[str]) -> list[float | None] | None:
        """See ``score_responses``."""
        model = self._judges.reward_model
        return None if model is None else score_responses(model, self._prompts.records, responses, self._batch_size)

    def _verdicts(self, responses: Sequence[str]) -> list[float] | None:
        """Of each response whether the judge prefers it to the reference's, see ``evaluation.winners.outcomes_of``."""
        judge = self._judges.judge
        if judge is None or self._references is None:
            return None
        called = zip(self._prompts.records, responses, self._references, strict=True)
        margins = [call_judge(judge, self._judges.name, *answers)[0] for answers in called]
        return outcomes_of(np.array(margins), tie_margin=0.0).tolist()

    def _answer(self, model: Decoder) -> list[list[int]]:
        ids, settings = self._prompts.ids, self._prompts.settings
        return answer_together(model, ids, settings, self._batch_size, self._topology, self._forward, self._together)

    def _text(self, answer: list[int]) -> str:
        return decode_answer(self._tokenizer, answer, self._prompts.settings.stop_ids, ())


def answer_together(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    batch_size: int,
    topology: Topology,
    forward: Forward,
    together: bool,
) -> list[list[int]]:
    """One answer to each prompt in tokens, in the prompts' order and in all processes; those of the data axis take turns in them.

    together: whether the processes of the shards axis compute each layer together (stage 3), and so all answer the same prompts. forward:
    of ``live_forward``.
    """
    axis = topology.replicas if together else topology.data
    places = range(len(prompts))[axis.rank :: axis.size]
    mine = generate(model, [prompts[place] for place in places], settings, batch_size, places, forward=forward)
    shares = gather_values(axis, mine)
    return [shares[place % axis.size][place // axis.size][0] for place in range(len(prompts))]


def live_forward(precision: Precision, topology: Topology, chain: Chain, together: bool) -> Forward:
    """How generation runs a model in the precision and the layout of its training. together: see ``answer_together``.

    Processes that generate the same texts take the logits of the first: two devices may round differently, and no longer meet where their
    texts differ.
    """
    dtype = precision.weights_dtype
    staged = staged_forward(chain, dtype)

    def forward(model: Decoder, input_ids: Tensor, position_ids: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
        with precision.autocast():
            hidden, logits = staged(model, input_ids, position_ids, attend)
        return hidden, from_holder(topology.shards, 0, logits, logits.shape, dtype) if together else logits

    return forward


def score_responses(model: RewardModel, records: Sequence[Record], responses: Sequence[str], batch_size: int) -> list[float | None]:
    """The reward of each response behind its record's prompt, by the reward model's own tokenizer and template.

    None where it cannot be scored: where no room is left beside it. The model is read, and let go.
    """
    template = load_template(model.tokenizer)
    limits = Limits(model.scorer.config.max_positions, truncation="truncate_prompt")
    found: dict[int, Any] = {}
    for place, (record, response) in enumerate(zip(records, responses, strict=True)):
        answered = Record(record.messages, (response,), False, record.source, record.tools)
        outcome = encode(answered, model.tokenizer, template, limits)
        if isinstance(outcome, Encoded):
            found[place] = outcome.example
    scores: list[float | None] = [None] * len(responses)
    if found:
        pace = Pace(model.tokenizer.pad_id, batch_size)
        for place, reward in zip(found, reward_scores(model.scorer, list(found.values()), pace), strict=True):
            scores[place] = float(reward[0])
    return scores
