"""What is trained as whole tensors, put together from what each process holds, one at a time; and a process's share of what was saved."""

from collections.abc import Callable, Mapping

import numpy as np
from paddle import Tensor

from paddlealign.models.decoder import Decoder
from paddlealign.models.parameters import cut_axis, held_shapes, holding_stage, share_of, take_share
from paddlealign.parallel.collect import from_holder, join_at_first
from paddlealign.parallel.topology import Topology


def whole_tensors(
    held: Mapping[str, Tensor], keepers: Mapping[str, int], dtype: str, model: Decoder, topology: Topology
) -> Callable[[str], Tensor | None]:
    """A function from the name of what is trained to the whole tensor on the main process; the others give their shares, and may get None.

    All processes of the tensor, pipeline and shards axes must call it, in the same order.

    held: this process's tensors in Paddle's layout, by a parameter's name or by that with the kind of the optimizer's tensor behind it.
    keepers: parameters of which one process alone has the tensors, and its place among the shards. dtype: of all of them.
    """
    shapes, layers, stages = model.trained_shapes(), model.config.num_layers, topology.pipeline.size
    shares = held_shapes(shapes, model.config, topology.tensor.size, stages, topology.pipeline.rank)

    def whole(name: str) -> Tensor | None:
        parameter = parameter_of(name, shapes)
        shape = list(shapes[parameter])
        holder = holding_stage(parameter, layers, stages)
        joined = None
        if topology.pipeline.rank == holder:
            share: Tensor | None = held.get(name)
            if parameter in keepers:
                share = from_holder(topology.shards, keepers[parameter], share, list(shares[parameter]), dtype)
            assert share is not None
            if topology.shards.rank == 0:
                joined = join_at_first(topology.tensor, share, cut_axis(parameter), shape)
        if topology.shards.rank or topology.tensor.rank:
            return None
        return from_holder(topology.pipeline, holder, joined, shape, dtype)

    return whole


def own_share(read: Callable[[str], np.ndarray], model: Decoder) -> Callable[[str], np.ndarray]:
    """A function from a name to this process's share of the whole tensor that ``read`` gives."""
    shapes = model.trained_shapes()

    def share(name: str) -> np.ndarray:
        parameter = parameter_of(name, shapes)
        if parameter not in shapes:  # what all parameters have in common, as the powers of AdamW's betas
            return read(name)
        return take_share(read(name), share_of(parameter, shapes[parameter], model.make.part, model.make.parts))

    return share


def parameter_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The parameter that a tensor belongs to: its own name, or that without the kind of the optimizer's tensor."""
    return name if name in shapes else name.rsplit(".", 1)[0]
