"""The layouts that are held to one process, and what is trained under each."""

from itertools import product
from typing import NamedTuple


class Layout(NamedTuple):
    """Degrees as ``topology.start`` takes them, the stage of sharding, and whether positions are cut."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    shards: int = 1
    stage: int = 0
    sequence: bool = False

    @property
    def ranks(self) -> int:
        """How many processes it takes."""
        return self.tensor * self.pipeline * self.data


MODELS = ("llama2_gqa", "qwen2_tied", "qwen3")
RESPONSES = {"sft": 1, "dpo": 2, "frozen": 2, "reward": 2}  # of an example; frozen: DPO against a copy in memory
# A reward model's head takes the place of a tied one here: no stage but the first holds the embedding then.
RUNS = (*product(MODELS, ("sft", "dpo", "frozen")), ("qwen2_tied", "reward"))
SINGLE = "one process"
LAYOUTS = {
    SINGLE: Layout(),
    "TP2": Layout(tensor=2),
    "TP2, sequence parallel": Layout(tensor=2, sequence=True),
    "PP2": Layout(pipeline=2),
    "DP2": Layout(data=2),
    "DP2, sharding stage 1": Layout(data=2, shards=2, stage=1),
    "DP2, sharding stage 2": Layout(data=2, shards=2, stage=2),
    "DP2, sharding stage 3": Layout(data=2, shards=2, stage=3),
    "TP2 x PP2, sequence parallel": Layout(tensor=2, pipeline=2, sequence=True),
    "TP2 x DP2, sharding stage 2": Layout(tensor=2, data=2, shards=2, stage=2),
    "PP2 x DP2, sharding stage 3": Layout(pipeline=2, data=2, shards=2, stage=3),
    "DP4, sharding stage 2 in twos": Layout(data=4, shards=2, stage=2),
}
# Which method goes with which model, by layout: each layout trains every model and every method once, and those that share a degree or a
# stage take other pairs in turn. scripts/parallel_page.py trains all ten runs under each.
_TURNS = {
    "TP2": 0, "TP2, sequence parallel": 1, "PP2": 1, "DP2": 0, "DP2, sharding stage 1": 1, "DP2, sharding stage 2": 2,
    "DP2, sharding stage 3": 1, "TP2 x PP2, sequence parallel": 2, "TP2 x DP2, sharding stage 2": 0, "PP2 x DP2, sharding stage 3": 0,
    "DP4, sharding stage 2 in twos": 1,
}  # fmt: skip


def some_runs(layout: str) -> tuple[tuple[str, str], ...]:
    """The four of RUNS that tell a layout's faults: three pairs of a model and a method, and the reward model."""
    methods = ("sft", "dpo", "frozen")
    pairs = [(model, methods[(place + _TURNS[layout]) % 3]) for place, model in enumerate(MODELS)]
    return (*pairs, RUNS[-1])
