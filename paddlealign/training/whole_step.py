"""What the losses of a step's batches must know of each other, over all micro-batches and processes."""

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.data.example import Batch
from paddlealign.parallel.collect import gather_values
from paddlealign.parallel.topology import Topology
from paddlealign.training.objective import Objective
from paddlealign.training.score import Scores


def step_contexts(
    objective: Objective,
    batches: Sequence[Batch],
    references: Sequence[Tensor | None],
    scores: Sequence[Scores | None],
    topology: Topology,
) -> list[Tensor | None]:
    """For each batch the context of its examples, float32 [examples, any]; None for each where the objective asks for none.

    references: what ``Objective.reference`` gave for each. scores: of each, without a gradient; None on the first stages of a pipeline,
    which get None. Called by all processes alike. A batch without examples gives and gets nothing.
    """
    if objective.whole_step is None:
        return [None] * len(batches)
    own: list[list[list[float]]] = []
    for batch, reference, seen in zip(batches, references, scores, strict=True):
        own.append([] if seen is None or not len(batch.example_ids) else objective.whole_step.observe(seen, reference).tolist())
    everyone = gather_values(topology.data, [row for rows in own for row in rows])
    if not any(everyone):
        return [None] * len(batches)
    context = objective.whole_step.context(np.array([row for rows in everyone for row in rows])).astype("float32")
    first = sum(len(rows) for rows in everyone[: topology.data.rank])
    ends = first + np.cumsum([len(rows) for rows in own])
    return [paddle.to_tensor(context[end - len(rows) : end]) if rows else None for rows, end in zip(own, ends, strict=True)]
