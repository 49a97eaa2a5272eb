"""The splits of a training run as stores of encoded rows: what they follow from, where they lie, and what stands in them twice."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from paddlealign.arguments.results import TrainArguments
from paddlealign.arguments.row_fields import column_names, shares
from paddlealign.arguments.row_files import dataset_files
from paddlealign.data.build import Building, Opened, open_or_build, records_behind, remove_others, told_of, trained_on
from paddlealign.data.chunk import Encoder, EncodingSettings
from paddlealign.data.chunk_counts import Told
from paddlealign.data.encoding import Limits
from paddlealign.data.example import Record
from paddlealign.data.examples import Examples
from paddlealign.data.records import RowReading
from paddlealign.data.repeats import describe_leaks, describe_repeats
from paddlealign.data.sources import data_hash
from paddlealign.data.store import Store
from paddlealign.data.template import Template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.machine import available_cores, ranks_here
from paddlealign.recipes.device import say
from paddlealign.saying import shows_bars


@dataclass(frozen=True)
class Split:
    """The rows of a split in tokens.

    content: a hash of its files. labels: bool [examples], which are desirable; None for other kinds. folder: of the store.
    """

    encoder: Encoder
    store: Store
    examples: Examples
    content: str
    told: Told
    labels: np.ndarray | None
    folder: Path

    def source(self, record: int) -> str:
        """Where a record stands, "file:line"."""
        row = self.store.records[record]
        return f"{self.encoder.paths[row['file']]}:{row['line']}"

    def example_source(self, example: int) -> str:
        """Where the record of an example stands."""
        return self.source(int(self.store.kept[example]))

    def records(self) -> Iterator[Record]:
        """What the examples were made of, read once more."""
        return records_behind(self.encoder, self.store)


def open_splits(
    arguments: TrainArguments, kind: str, score_turns: str | None, tokenizer: Tokenizer, template: Template
) -> dict[str, Split]:
    """The stores of the splits that the run reads, by name. kind: as in ``prepare_rows``. Raises UserError."""
    data, training = arguments.data, arguments.training
    hidden = training.check and not data.dataset_cache_dir
    found: dict[str, Split] = {}
    # A check leaves nothing behind: what is mapped may be read when its file has no name any more.
    with TemporaryDirectory(prefix="paddlealign-") if hidden else _made(Path(data.dataset_cache_dir or _own_cache(arguments))) as cache:
        # Of the processes of a run one encodes and the others wait, so it may use all cores; in a check each encodes for itself.
        workers = data.dataset_num_proc or max(1, available_cores() // (ranks_here(os.environ) if hidden else 1))
        building = Building(Path(cache), workers, shows_bars() and not training.disable_tqdm, say)
        for name, paths in dataset_files(data, arguments.rows, training)._asdict().items():
            if paths:
                share = shares(arguments.rows, arguments.command) if name == "train" else None
                settings = _settings(arguments, kind, score_turns, share)
                encoder = Encoder(settings, tokenizer, template, tuple(paths))
                content = data_hash(paths)
                opened = open_or_build(name, encoder, content, building)
                if opened.reused:
                    say(f"{name}: encoded rows taken from {opened.folder}")
                found[name] = _split(encoder, opened, content)
    return found


def forget_others(arguments: TrainArguments, folders: Sequence[Path]) -> None:
    """Take away what earlier starts in output_dir encoded and this run does not read; dataset_cache_dir is left alone, others share it.

    folders: of the stores that the run reads. Called once the run is settled: a start that is refused takes nothing away.
    """
    if not arguments.data.dataset_cache_dir:
        remove_others(_own_cache(arguments), folders)


def _own_cache(arguments: TrainArguments) -> Path:
    return Path(arguments.training.output_dir) / "encoded"


@contextmanager
def _made(cache: Path) -> Iterator[str]:
    """The folder of stores; where nothing came of the rows, the folders that were made for them go again."""
    new = [folder for folder in (cache, *cache.parents) if not folder.exists()]
    try:
        yield str(cache)
    finally:
        for folder in new:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def _settings(arguments: TrainArguments, kind: str, score_turns: str | None, share: tuple[float, float] | None) -> EncodingSettings:
    data, rows = arguments.data, arguments.rows
    reading = RowReading(rows.row_form, rows.pairs, column_names(rows, kind), rows.system_prompt)
    limits = Limits(data.max_length, data.src_length, data.truncation)
    return EncodingSettings(kind, reading, limits, share, score_turns, data.chat_template, rows.on_bad_row)


def _split(encoder: Encoder, opened: Opened, content: str) -> Split:
    store = opened.store
    labels = store.records["desirable"][store.kept] == 1 if encoder.settings.kind == "labelled" else None
    return Split(encoder, store, trained_on(encoder, store), content, told_of(encoder, store), labels, opened.folder)


def repeats_in(name: str, split: Split) -> list[str]:
    """See ``describe_repeats``."""
    return describe_repeats(name, split.store.records["record"], split.source)


def leaks(train: Split, dev: Split) -> list[str]:
    """See ``describe_leaks``."""
    ours, theirs = train.store.records, dev.store.records
    return describe_leaks(ours["prompt"], ours["prompted"], theirs["prompt"], train.source, dev.source)
