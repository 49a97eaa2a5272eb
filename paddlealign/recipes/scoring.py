"""What the commands that score texts share: rows in tokens, a model found and read, and what it says of each response."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from paddlealign.data.encoding import EncodedSet, Limits, encode_all
from paddlealign.data.example import Batch, Example, Record
from paddlealign.data.examples import Examples
from paddlealign.data.order import evaluation_plan
from paddlealign.data.packing import lay, lengths_of
from paddlealign.data.records import ReadReport
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.evaluation.perplexity import sum_by_response
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.weights import plan_loading
from paddlealign.recipes.adapter import load_adapted, read_adapter, with_adapter
from paddlealign.recipes.device import choose_dtype, say
from paddlealign.recipes.rows import NO_EXAMPLES, Rows, check_shared_prompts, check_vocabulary, describe_rows, note_length
from paddlealign.saying import shows_bars
from paddlealign.training.precision import Precision
from paddlealign.training.score import Scores, score_without_gradient


@dataclass(frozen=True)
class Scorer:
    """A model that is whole and not yet in memory.

    key: that names its folder. dtype: of its weights once they are read. lora_path: of the adapter beside it, if there is one.
    """

    key: str
    folder: str
    config: DecoderConfig
    allow_pickle: bool
    dtype: str
    lora_path: str | None

    def load(self) -> Decoder:
        """Read the weights."""
        return load_adapted(self.folder, self.config, self.dtype, self.allow_pickle, self.lora_path)


@dataclass(frozen=True)
class Pace:
    """How many texts go through a model at once. pad_id: fills rows up. batch_size: examples."""

    pad_id: int
    batch_size: int


def find_scorer(
    key: str,
    folder: str,
    need_head: Callable[[DecoderConfig, str], None],
    allow_pickle: bool,
    dtype: str,
    device: str,
    lora_path: str | None = None,
) -> Scorer:
    """Look at a model's files; what is missing, damaged or of another kind is told before the rows are read. dtype: as the user asked."""
    stored = read_config(folder)
    config = with_adapter(stored, lora_path)
    beside = f"{key} (with lora_path {lora_path})" if lora_path else key
    need_head(config, beside if config.head == stored.head else "lora_path")
    plan_loading(config, folder, allow_pickle, stored)
    if lora_path:
        read_adapter(lora_path, folder, config)
    return Scorer(key, folder, config, allow_pickle, choose_dtype(dtype, config, device), lora_path)


def encode_told(
    name: str, records: Sequence[Record], read: ReadReport, tokenizer: Tokenizer, chat_template: str, limits: Limits
) -> EncodedSet:
    """The records in tokens; what is cut and left out is told. name: of the rows, in front of the lines."""
    encoded = encode_all(records, tokenizer, load_template(tokenizer, chat_template), limits, shows_bars())
    for line in describe_rows(name, read, encoded.report):
        say(line)
    return encoded


def hold_to(scorer: Scorer, examples: Examples, tokenizer: Tokenizer) -> None:
    """Raise UserError where the model cannot read the examples, and say where they are longer than it was made for."""
    rows = Rows(tokenizer, tokenizer.eos_id, NO_EXAMPLES, examples, {}, highest_id=int(examples.tokens.max(initial=-1)))
    check_vocabulary(rows, scorer.config.vocab_size, scorer.key)
    check_shared_prompts(rows, scorer.config, scorer.key)
    note_length(rows, scorer.config)


def reward_scores(scorer: Scorer, examples: Sequence[Example], pace: Pace) -> list[np.ndarray]:
    """The rewards of each example's responses, float32 [responses]. The model is read, and let go."""
    rewards: list[np.ndarray] = [np.zeros(0, np.float32)] * len(examples)
    for batch, scores in _scored_batches(scorer.load(), examples, pace):
        for index, part in _by_example(batch, examples, scores.rewards.numpy()):
            rewards[index] = part
    gc.collect()
    return rewards


def response_nlls(scorer: Scorer, examples: Sequence[Example], pace: Pace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a language model says of examples with one response each. The model is read, and let go.

    Returns the negative log-likelihoods, float64 [examples], in nats; the scored tokens, int64 [examples]; and how many of these are the
    model's first choice, int64 [examples].
    """
    nlls, tokens, right = np.zeros(len(examples)), np.zeros(len(examples), np.int64), np.zeros(len(examples), np.int64)
    for batch, scores in _scored_batches(scorer.load(), examples, pace):
        owner = scores.owner.numpy()
        nlls[batch.example_ids], tokens[batch.example_ids] = sum_by_response(scores.token_logps.numpy(), owner, scores.responses)
        right[batch.example_ids] = np.bincount(owner, weights=scores.correct.numpy(), minlength=scores.responses)
    gc.collect()
    return nlls, tokens, right


def _scored_batches(model: Decoder, examples: Sequence[Example], pace: Pace) -> Iterator[tuple[Batch, Scores]]:
    """All examples in their order, with a bar."""
    precision = Precision(str(model.parameters()[0].dtype).removeprefix("paddle."), "O2", None)
    plan = evaluation_plan(lengths_of(examples), batch_size=pace.batch_size)
    with tqdm(total=len(examples), unit="row", dynamic_ncols=True, disable=not shows_bars()) as bar:
        for index in range(plan.steps):
            batch = lay(examples, plan.step(index)[0][0], pace.pad_id)
            scores = score_without_gradient(model, batch, precision)
            assert scores is not None
            yield batch, scores
            bar.update(len(batch.example_ids))


def _by_example(batch: Batch, examples: Sequence[Example], values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The values of a batch's responses, [responses], for each example together."""
    ends = np.cumsum([len(examples[index].responses) for index in batch.example_ids])
    yield from zip(batch.example_ids, np.split(values, ends[:-1]), strict=True)


def refuse_taken(row: Mapping[str, Any], keys: Sequence[str], source: str) -> None:
    """Raise UserError where a row has a key already that is to be written."""
    taken = [key for key in keys if key in row]
    if taken:
        raise UserError(f'{source}: the row has a key "{taken[0]}" already, which would be overwritten. Rename it.')


def with_texts(row: dict[str, Any], texts: Mapping[str, object]) -> dict[str, Any]:
    """The row with one text in the place of each list of texts that it holds under these keys. texts: key -> the text."""
    lists = [key for key in texts if isinstance(row.get(key), list) and all(isinstance(item, str) for item in row[key])]
    return {**row, **{key: texts[key] for key in lists}}
