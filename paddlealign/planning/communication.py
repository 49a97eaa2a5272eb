"""What a device sends in a step, by kind of collective, from what this project's layers, pipeline and sharding do.

Costs are those of a ring of r devices that pass on pieces (Patarasuk and Yuan 2009), in bytes that each device sends: an all-reduce of n
bytes 2 (r - 1) / r n, an all-gather or a reduce-scatter (r - 1) / r n, a broadcast or a reduce n. Latencies are left out, and so are the
few bytes of norms and losses. Nothing is overlapped with arithmetic.
"""

from dataclasses import dataclass

from paddlealign.planning.layout import Holding, Job, Layout


@dataclass(frozen=True)
class Traffic:
    """One kind of traffic of a device in a step.

    kind: for people. sent: bytes in a step. each_micro_batch: whether it comes with every micro-batch, or once at the step's end. links: to
    other machines that its ring has; 0 where all devices that take part sit in one machine.
    """

    kind: str
    sent: float
    each_micro_batch: bool
    links: int


def all_reduce(size: float, ranks: int) -> float:
    """Bytes that each device sends to add up ``size`` bytes everywhere."""
    return 2 * (ranks - 1) / ranks * size


def gather(size: float, ranks: int) -> float:
    """Bytes that each device sends where ``size`` bytes are put together everywhere, or added up and cut."""
    return (ranks - 1) / ranks * size


def relay(size: float, ranks: int) -> float:
    """Bytes that each device sends where ``size`` bytes of one come to all, or are added up at one."""
    return size if ranks > 1 else 0.0


def step_traffic(job: Job, layout: Layout, stage: int, holding: Holding, reference: Holding | None, per_node: int) -> list[Traffic]:
    """All traffic of one of a stage's devices in a step. holding, reference: see ``memory.stage_memory``. per_node: devices of a machine.

    Neighbours in tensor are neighbours among the devices, then those in pipeline, then those of the shards.
    """
    tensor, pipeline = layout.tensor, layout.pipeline
    # Of each axis: how far apart its neighbours are, and how far its first and last.
    reach = {
        "tensor": (1, tensor),
        "pipeline": (tensor, 2 * tensor),
        "shards": (tensor * pipeline, tensor * pipeline * layout.shards),
        "data": (tensor * pipeline, layout.devices),
    }
    links = {axis: 0 if span <= per_node else max(1, per_node // stride) for axis, (stride, span) in reach.items()}
    count, tokens = layout.micro_batches, layout.rows * job.usual.tokens
    hidden = job.config.hidden_size * job.stream_bytes * tokens
    found: list[Traffic] = []

    def add(kind: str, sent: float, axis: str, each: bool = True) -> None:
        if sent:
            found.append(Traffic(kind, sent, each, links[axis]))

    if tensor > 1:
        # All-reduces of hidden states; reduce-scatter and all-gather of sequence_parallel move as much. Each layer has two forward
        # (attention, MLP) and two backward; the embedding has one forward, the head one backward over the scored tokens, and three numbers
        # for each of them.
        passes = 6 if layout.recompute else 4
        sums = passes * holding.layers + (stage == 0)
        if reference:
            sums += 2 * reference.layers + (stage == 0)
        add("tensor: hidden states", count * all_reduce(sums * hidden, tensor), "tensor")
        if holding.head:
            scored = layout.rows * job.usual.scored
            small = scored * (job.config.hidden_size * job.stream_bytes + 12 * (2 if reference else 1))
            add("tensor: head", count * all_reduce(small, tensor), "tensor")
    if pipeline > 1:
        cut = tensor if layout.sequence_parallel else 1
        last = stage == pipeline - 1
        sends = (0 if last else 2 if reference else 1) + (0 if stage == 0 else 1)
        add("pipeline: hidden states", count * sends * hidden / cut, "pipeline")
    for kind, sent, axis, each in _data_traffic(job, layout, holding):
        add(kind, sent, axis, each)
    return found


def _data_traffic(job: Job, layout: Layout, holding: Holding) -> list[tuple[str, float, str, bool]]:
    """The traffic between processes that read different rows: kind, bytes, axis, whether each micro-batch has it."""
    shards, count = layout.shards, layout.micro_batches
    held, gradients = job.weight_bytes, 4.0  # gradients travel as float32
    found = []
    if layout.sharding < 2:
        found.append(("data: gradients, all-reduce", all_reduce(gradients * holding.total, layout.data), "data", False))
    else:
        found.append(("data: gradients to owners", count * relay(gradients * holding.total, shards), "shards", True))
        found.append(("data: gradients of replicas", all_reduce(gradients * holding.owned, layout.data // shards), "data", False))
    if layout.sharding in (1, 2):
        found.append(("data: new weights to all", relay(held * holding.total, shards), "shards", False))
    if layout.sharding == 3:
        # Each layer comes forward and again backward; but forward's last is backward's first, and backward's last the next forward's first.
        gathered = (count * (2 * holding.layers - 2) + 1) * holding.layer
        found.append(("data: layers' weights to all", relay(held * gathered, shards), "shards", True))
        found.append(("data: new weights to all", relay(held * holding.whole, shards), "shards", False))
    return found
