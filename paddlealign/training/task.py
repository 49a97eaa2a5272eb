"""All that a run is made of."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from paddle.optimizer import AdamW

from paddlealign.data.example import Batch
from paddlealign.models.decoder import Decoder
from paddlealign.parallel.pipeline import LONE_CHAIN, Chain
from paddlealign.parallel.sharding import Sharding, unsharded
from paddlealign.parallel.topology import SINGLE, Topology
from paddlealign.training.feed import Feed
from paddlealign.training.folder_lock import FolderLock
from paddlealign.training.moving_reference import MovingReference
from paddlealign.training.objective import Objective
from paddlealign.training.precision import Precision


class Sampled(NamedTuple):
    """What the policy's answers at a step come to. metrics: for the run log. told: a line on them. shown: prompts and answers."""

    metrics: dict[str, float]
    told: str
    shown: list[str]


@dataclass(frozen=True)
class Task:
    """All that a run is made of, ready to start.

    feed: the training rows in their order. dev_batches: makes the evaluation batches, anew each time. side_files: what is copied beside
    the weights, see ``checkpoint.save_policy``. sample: lets the policy answer prompts, given the step; None where that is not asked for.
    moving: the reference, where it follows the policy. run_file: the run's run.json, for its checkpoints. lock: of the output folder.
    moving: the reference, where it follows the policy. source_of: "file:line" of an example's row, where that is known. keep_margins: takes
    the step and the dev pairs' margins of an evaluation, see ``step.evaluate``; None in processes that keep none.
    """

    policy: Decoder
    optimizer: AdamW
    precision: Precision
    objective: Objective
    feed: Feed
    dev_objective: Objective
    dev_batches: Callable[[], Iterable[Batch]]
    side_files: Mapping[str, bytes]
    topology: Topology = SINGLE
    chain: Chain = LONE_CHAIN
    sharding: Sharding = field(default_factory=unsharded)
    sample: Callable[[int], Sampled] | None = None
    moving: MovingReference | None = None
    run_file: bytes | None = None
    lock: FolderLock | None = None
    source_of: Callable[[int], str] | None = None
    keep_margins: Callable[[int, Mapping[str, np.ndarray]], None] | None = None
