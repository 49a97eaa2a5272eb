"""The rows of a training run: read, encoded, told, and held against the model."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paddlealign.arguments.results import TrainArguments
from paddlealign.arguments.row_fields import numbers
from paddlealign.arguments.row_files import train_sources
from paddlealign.data.chunk_counts import Told
from paddlealign.data.encoding import examples_hash
from paddlealign.data.encoding_report import EncodingReport
from paddlealign.data.example import Batch, Record
from paddlealign.data.examples import Examples
from paddlealign.data.order import Mixture, evaluation_plan
from paddlealign.data.packing import lay
from paddlealign.data.records import ReadReport
from paddlealign.data.refusals import RefusedRow, describe_refusals, kept_refusals
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.config import DecoderConfig
from paddlealign.models.tricks import chosen_tricks
from paddlealign.parallel.topology import Axis
from paddlealign.recipes.adapter import load_tokenizer
from paddlealign.recipes.device import say
from paddlealign.recipes.splits import Split, leaks, open_splits, repeats_in
from paddlealign.training.feed import Feed


@dataclass(frozen=True)
class Rows:
    """The rows of a run in tokens.

    end_id: the token that ends an answer.
    hashes: for run.json, by what they are of: the files of each split, and the training examples' tokens. train_labels, dev_labels: bool
    [examples] of labelled rows, which are desirable; None for other kinds. mixture: how many of the training examples come from each path,
    and how much of them an epoch takes. highest_id: of all tokens. tokens_hashes: of each split, see ``examples_hash``.
    told: what became of each split's rows, by the split's name.
    dev_records: reads what the dev examples were made of. refused: rows of both splits that were skipped.
    train_source: tells where a training example stands, "file:line". folders: of the stores that all this is read from.
    """

    tokenizer: Tokenizer
    end_id: int
    train: Examples
    dev: Examples
    hashes: dict[str, str]
    train_labels: np.ndarray | None = None
    dev_labels: np.ndarray | None = None
    mixture: Mixture = ()
    highest_id: int = -1
    tokens_hashes: Mapping[str, str] = field(default_factory=dict)
    dev_records: Callable[[], Iterator[Record]] = lambda: iter(())
    refused: Sequence[RefusedRow] = ()
    train_source: Callable[[int], str] | None = None
    folders: Sequence[Path] = ()
    told: Mapping[str, Told] = field(default_factory=dict)


NO_EXAMPLES = Examples.of([])


def prepare_rows(arguments: TrainArguments, kind: str, score_turns: str | None = None) -> Rows:
    """The train and dev rows in tokens, encoded or taken from where they were; what became of them is told.

    kind: "sft", "preference" or "labelled". score_turns: which of an SFT row's answers are scored; None in pairs, whose answers always are.
    """
    data = arguments.data
    tokenizer = load_tokenizer(arguments.model, arguments.adapter.lora_path)
    template = load_template(tokenizer, data.chat_template)
    splits = open_splits(arguments, kind, score_turns, tokenizer, template)
    train, dev = splits.get("train"), splits.get("dev")
    mixture = _mixture(arguments, train) if train else ()
    hashes: dict[str, str] = {}
    for name, split in splits.items():
        if split.labels is not None:
            hashes[f"{name} labels"] = hashlib.sha256(split.labels.tobytes()).hexdigest()
        hashes[f"{name} files"] = split.content
        lines = describe_left_out(name, split.told.read, split.told.encoding, split.told.other_shares)
        for line in [*lines, *repeats_in(name, split), *(leaks(train, split) if name == "dev" and train else [])]:
            say(line)
    nothing = examples_hash(NO_EXAMPLES)
    tokens_hashes = {name: splits[name].store.tokens_hash if name in splits else nothing for name in ("train", "dev")}
    hashes["train tokens"] = tokens_hashes["train"]
    return Rows(
        tokenizer,
        tokenizer.special_tokens.get(template.end_token, tokenizer.eos_id),
        train.examples if train else NO_EXAMPLES,
        dev.examples if dev else NO_EXAMPLES,
        hashes,
        train.labels if train else None,
        dev.labels if dev else None,
        mixture,
        max((split.store.highest_id for split in splits.values()), default=-1),
        tokens_hashes,
        dev.records if dev else lambda: iter(()),
        kept_refusals((split.store.refused, split.encoder.paths) for split in splits.values()),
        train.example_source if train else None,
        [split.folder for split in splits.values()],
        {name: split.told for name, split in splits.items()},
    )


def _mixture(arguments: TrainArguments, train: Split) -> Mixture:
    """How many examples come from each path of training rows, and its weight, which is told."""
    if arguments.rows.dataset_weights is None:
        return ()
    files = train_sources(arguments.data, arguments.rows)
    path_of = {str(file): number for number, path in enumerate(files) for file in path}
    if len(path_of) < sum(map(len, files)):
        raise UserError("dataset_weights: a file of training rows stands in two of the paths. Name it once, and weigh it more.")
    of_file = np.bincount(train.store.records["file"][train.store.kept], minlength=len(train.encoder.paths))
    counts = [sum(int(of_file[train.encoder.paths.index(file)]) for file in path) for path in files]
    empty = [number for number in range(len(files)) if not counts[number]]
    if empty:
        raise UserError(f"dataset_weights: no row of {files[empty[0]][0]} can be used, so there is nothing to take from that path.")
    mixture = tuple((counts[number], weight) for number, weight in enumerate(numbers(arguments.rows.dataset_weights)))
    names = arguments.data.train_dataset_path or arguments.data.dataset_name_or_path or []
    parts = [f"{count * weight:,.0f} of {name}'s {count:,}" for name, (count, weight) in zip(names, mixture, strict=True)]
    say(f"train: an epoch takes {', '.join(parts)} examples")
    return mixture


def describe_rows(split: str, read: ReadReport, encoded: EncodingReport) -> list[str]:
    """Lines that say what became of a split's rows: kept, cut, left out and why."""
    return [f"{split}: {describe_kept(read, encoded)}", *describe_left_out(split, read, encoded)]


def describe_kept(read: ReadReport, encoded: EncodingReport) -> str:
    """How many of the rows are used, and their tokens."""
    names = [path.name for path in read.files]
    files = f"1 file ({names[0]})" if len(names) == 1 else f"{len(names)} files ({names[0]} to {names[-1]})"
    total = read.records + sum(read.refused.values()) + len(read.skipped)  # a row may hold several pairs or answers
    of_all = f"{total:,} rows" if total == read.rows else f"{total:,} records ({read.rows:,} rows)"
    return f"{encoded.kept:,} of {of_all} from {files}, {encoded.tokens:,} tokens, {encoded.scored_tokens:,} of them scored"


def describe_left_out(split: str, read: ReadReport, encoded: EncodingReport, other_shares: int = 0) -> list[str]:
    """Lines that say in which form a split's rows are, and which were cut or left out and why. other_shares: see ``chunk_counts.Told``."""
    forms = ", ".join(read.forms if len(read.forms) == 1 else [f"{name} ({count:,})" for name, count in read.forms.items()])
    lines = [f"{split}: rows: {forms} form{'s' if len(read.forms) > 1 else ''}"] if read.forms else []
    left_out = [(other_shares, "in the other shares of data_split")]
    longest = f"the longest has {encoded.longest_row:,} tokens; raise src_length or max_length, or set truncation"
    left_out += [(encoded.dropped_too_long, f"too long ({longest}; first: {encoded.too_long_at})")]
    left_out += [(count, f"{reason} (first: {read.refused_at[reason]})") for reason, count in read.refused.items()]
    left_out += [(count, f"{reason} (first: {encoded.refused_at[reason]})") for reason, count in encoded.refused.items()]
    lines += [f"{split}: left out {count:,}: {reason}" for count, reason in left_out if count]
    lines += describe_refusals(split, read.skipped)
    if encoded.prompts_truncated or encoded.responses_truncated:
        lines.append(f"{split}: cut {encoded.prompts_truncated:,} prompts and {encoded.responses_truncated:,} responses")
    if encoded.altered_turns:
        lines.append(f"{split}: {encoded.altered_turns:,} earlier answers are changed by the chat template and not scored")
    if encoded.special_text_rows:
        rows = f"rows with the text of special tokens: {encoded.special_text_rows:,} (first: {encoded.special_text_at})"
        lines.append(f"{split}: {rows}; it is kept as text, only the chat template writes such tokens")
    return lines + [f"note: {warning}" for warning in read.warnings]


def make_feed(arguments: TrainArguments, rows: Rows, axis: Axis) -> Feed:
    """Lay down the order of the training rows; ``axis`` are the processes that read different ones."""
    data, training = arguments.data, arguments.training
    packing = "best_fit" if data.greedy_zero_padding else "next_fit" if data.zero_padding else "micro_batch"
    if training.group_by_length:
        packing = "by_length"
    limit = training.tokens_per_batch
    if limit is not None:
        packing = "tokens"
        longer = int((rows.train.lengths > limit).sum())
        if longer:
            say(f"note: {longer:,} training examples have more than tokens_per_batch {limit:,} tokens; each is a batch of its own")
    tricks = chosen_tricks(training.plain_path)
    return Feed(
        rows.train,
        pad_id=rows.tokenizer.pad_id,
        seed=training.seed,
        max_length=data.max_length if limit is None else limit,
        micro_batch_size=training.per_device_train_batch_size if limit is None else 1,
        accumulation=training.gradient_accumulation_steps,
        packing=packing,
        epochs=training.num_train_epochs,
        max_steps=training.max_steps,
        rank=axis.rank,
        ranks=axis.size,
        mixture=rows.mixture,
        shared_prompt=tricks.shared_prompt,
        packed_rows=tricks.packed_rows,
    )


def dev_batches(arguments: TrainArguments, rows: Rows, axis: Axis) -> Iterator[Batch]:
    """The dev rows in their order, per_device_eval_batch_size of them at a time for each process that reads other rows.

    They are shared out by length, and what is left at the end evenly; a process for which none is left gets an idle batch.
    """
    tricks = chosen_tricks(arguments.training.plain_path)
    plan = evaluation_plan(rows.dev.lengths, batch_size=arguments.training.per_device_eval_batch_size, ranks=axis.size)
    for index in range(plan.steps):
        yield lay(rows.dev, plan.step(index)[axis.rank][0], rows.tokenizer.pad_id, tricks.shared_prompt, tricks.packed_rows)


def vocabulary_size(arguments: TrainArguments, rows: Rows, config: DecoderConfig) -> int:
    """Rows that a model's embedding and head shall have: its own, or the tokenizer's where these are more and resize_vocab is on.

    Raises UserError where they would grow under an adapter, which is saved without them.
    """
    if arguments.training.resize_vocab and arguments.adapter.lora and rows.tokenizer.size > config.vocab_size:
        raise UserError(
            f"resize_vocab with lora: the tokenizer has {rows.tokenizer.size} tokens and the model {config.vocab_size}, but an adapter is "
            "saved without embedding and head. Train all weights (lora false), or set resize_vocab to false."
        )
    return max(config.vocab_size, rows.tokenizer.size) if arguments.training.resize_vocab else config.vocab_size


def check_vocabulary(rows: Rows, vocab_size: int, key: str) -> None:
    """The rows' tokens must be in a model's vocabulary. key: names the model in the message."""
    if rows.highest_id >= vocab_size:
        raise UserError(
            f"{key}: the tokenizer in {rows.tokenizer.folder} gives token {rows.highest_id}, but the model has {vocab_size} tokens; "
            "use the tokenizer that belongs to the model, or, where tokens were added to it, set resize_vocab to true"
        )


def check_shared_prompts(rows: Rows, config: DecoderConfig, key: str) -> None:
    """Dynamic rotary angles depend on the text's length, so beyond the trained length a prompt differs from answer to answer."""
    if config.rope.kind != "dynamic":
        return
    longest = max(longest_text(examples, several=True) for examples in (rows.train, rows.dev))
    if longest > config.rope.original_positions:
        raise UserError(
            f"{key}: this model's rope type is dynamic, which turns a prompt otherwise for each of its answers once they are longer than "
            f"{config.rope.original_positions} tokens; the longest pair has {longest}. Set max_length to {config.rope.original_positions}."
        )


def longest_text(examples: Examples, several: bool = False) -> int:
    """Tokens of the longest prompt with one of its responses; 0 where there are no examples. several: of those that have several."""
    return int(examples.text_lengths[examples.response_counts > several].max(initial=0))


def note_length(rows: Rows, config: DecoderConfig) -> None:
    """Say so where a row is longer than what the model was made for."""
    longest = max(longest_text(rows.train), longest_text(rows.dev))
    if longest > config.max_positions:
        say(f"note: the longest row has {longest} tokens, the model was made for {config.max_positions}; consider a lower max_length")
