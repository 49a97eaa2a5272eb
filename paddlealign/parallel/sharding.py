"""ZeRO (Rajbhandari et al. 2020): each process of the shards axis keeps a part of what all would keep alike.

Every parameter has an owner. Stage 1: only the owner has its optimizer state, updates it and gives the new values to the others. Stage 2:
only the owner has its gradient, too. Stage 3: only the owner has the weights of a layer; before the layer computes they are brought
together, and let go when the next one's turn comes, so that one layer is whole at a time. What is kept are whole parameters, not slices:
every collective moves a tensor as it is. Embedding, last norm, head and adapters stay whole everywhere.

The gradients of a step are added up here, in float32 whatever the weights' dtype: in 16 bits the small ones of later micro-batches would
be lost.
"""

from collections.abc import Iterable, Mapping

import paddle
from paddle import Tensor, nn
from paddle import distributed as dist

from paddlealign.parallel.collect import from_holder
from paddlealign.parallel.topology import SINGLE, Topology

NamedTensors = Iterable[tuple[str, Tensor]]


def owners_of(sizes: Mapping[str, int], ranks: int, first: str = "") -> dict[str, int]:
    """Which of ``ranks`` owns each parameter, by sizes in elements: the largest first, each to the rank with the least so far.

    The same on every process, since ties go to the earlier parameter and the lower rank. The loads of two ranks differ by the largest
    size at most. first: a parameter that rank 0 owns in any case, being dealt out before the others. There must be a parameter for every
    rank (ValueError).
    """
    if len(sizes) < ranks:
        raise ValueError(f"{len(sizes)} parameters are too few for {ranks} ranks")
    loads = [0] * ranks
    owners = {}
    for name in sorted(sizes, key=lambda name: (name != first, -sizes[name])):
        owner = loads.index(min(loads))
        owners[name] = owner
        loads[owner] += sizes[name]
    return owners


class Sharding:
    """One model's parameters, their gradients during a step, and what of them this process keeps. Stage 0: everything."""

    def __init__(self, stage: int, owners: Mapping[str, int], topology: Topology) -> None:
        """stage: 0 to 3. owners: a parameter's name to the place of its owner among ``topology.shards``; read from stage 1 on."""
        self.stage, self.owners = stage, owners
        self._shards, self._replicas, self._data = topology.shards, topology.replicas, topology.data
        self._sums: dict[str, Tensor] = {}
        # Stage 3: each layer's parameters, the names of all of these, and the layer that is whole now.
        self._layers: dict[int, list[tuple[str, Tensor]]] = {}
        self._apart: set[str] = set()
        self._whole: nn.Layer | None = None
        self._whole_has_gradients = False

    def owns(self, name: str) -> bool:
        """Whether this process updates the parameter of that name."""
        return self.stage == 0 or self.owners[name] == self._shards.rank

    def own(self, model: nn.Layer) -> list[tuple[str, Tensor]]:
        """The parameters that this process updates."""
        return [(name, it) for name, it in model.named_parameters() if not it.stop_gradient and self.owns(name)]

    def owns_gradient(self, name: str) -> bool:
        """Whether this process has the parameter's gradient after ``settle``."""
        return self.stage < 2 or self.owns(name)

    # What the decoder calls

    @paddle.no_grad()
    def built(self, prefix: str, layer: nn.Layer) -> None:
        """Let a new layer's weights go that others own, before the next layer takes memory. prefix: of its parameters' names."""
        if self.stage == 3:
            self._layers[id(layer)] = [(prefix + name, parameter) for name, parameter in layer.named_parameters()]
            self._apart.update(name for name, _ in self._layers[id(layer)])
            self._let_go(layer)

    @paddle.no_grad()
    def enter(self, layer: nn.Layer, with_gradients: bool) -> None:
        """Bring a layer's weights together before it computes; the layer before lets its own go. All processes of the axis call it."""
        if layer is not self._whole:
            self.leave()
            self._bring_together(layer)
        # In forward a layer that is computed again in backward has no gradients to come, and in evaluation none has.
        self._whole_has_gradients |= with_gradients

    def _bring_together(self, layer: nn.Layer) -> None:
        for name, parameter in self._layers[id(layer)]:
            owner = self.owners[name]
            held = parameter if owner == self._shards.rank else None
            whole = from_holder(self._shards, owner, held, parameter.shape, str(parameter.dtype).removeprefix("paddle."))
            if held is None:
                whole._share_buffer_to(parameter)
        self._whole = layer

    @paddle.no_grad()
    def leave(self) -> None:
        """Let the layer go that is whole now; gradients that it has by then go to their owners."""
        if self._whole is None:
            return
        if self._whole_has_gradients:
            self._take(self._layers[id(self._whole)])
        self._let_go(self._whole)
        self._whole, self._whole_has_gradients = None, False

    def _let_go(self, layer: nn.Layer) -> None:
        for name, parameter in self._layers[id(layer)]:
            if not self.owns(name):
                parameter._clear_data()

    # What a step calls

    @paddle.no_grad()
    def take(self, parameters: NamedTensors) -> None:
        """Add up the gradients of one micro-batch: in float32, and from stage 2 on at their owners, where the others drop theirs.

        All processes of the axis call it, after each micro-batch's backward. Float32 gradients add up in the parameters.
        """
        self._take((name, parameter) for name, parameter in parameters if name not in self._apart)

    def _take(self, parameters: NamedTensors) -> None:
        """``take`` of parameters that all processes of the axis have new gradients of."""
        for name, parameter in parameters:
            if parameter.grad is None:
                continue
            is_half = parameter.dtype != paddle.float32
            # A weight that is used as a view may have a gradient that lies in another order, which the collectives refuse; contiguous()
            # lays out the parameter's own gradient anew.
            gradient = parameter.grad.astype("float32").contiguous() if is_half else parameter.grad.contiguous()
            if self.stage >= 2 and self._shards.size > 1:
                # What the owner has summed up so far stays in it.
                dist.reduce(gradient, dst=self._shards.ranks[self.owners[name]], group=self._shards.group)
            if is_half and self.owns_gradient(name):
                total = self._sums.get(name)
                self._sums[name] = gradient if total is None else total.add_(gradient)
            if is_half or not self.owns_gradient(name):
                parameter.clear_gradient(False)  # set_to_zero: by its name it is not heeded, and zeros would stay in memory

    @paddle.no_grad()
    def settle(self, parameters: NamedTensors) -> None:
        """After the last micro-batch: put the sums over all processes that read different rows into the parameters' gradients.

        From stage 2 on only what this process owns has one then. Every process has had a gradient for each parameter.
        """
        self.leave()
        axis = self._data if self.stage < 2 else self._replicas
        for name, parameter in parameters:
            total = self._sums.pop(name, None)
            if total is not None:
                _set_gradient(parameter, total)
            if axis.size > 1 and parameter.grad is not None:
                dist.all_reduce(parameter.grad, group=axis.group)

    @paddle.no_grad()
    def share(self, parameters: NamedTensors) -> None:
        """After the update: bring the new values from their owners to all. Layers that are brought together anyway are left out."""
        if self._shards.size == 1 or self.stage == 0:
            return
        for name, parameter in parameters:
            if name not in self._apart:
                dist.broadcast(parameter, src=self._shards.ranks[self.owners[name]], group=self._shards.group)

    # What is asked by whoever puts the whole model together

    @property
    def keepers(self) -> dict[str, int]:
        """Who alone has a parameter's values, by its name: its place among the shards. Parameters that all have are left out."""
        return {name: owner for name, owner in self.owners.items() if name in self._apart}


def unsharded(topology: Topology = SINGLE) -> Sharding:
    """Every process keeps everything."""
    return Sharding(0, {}, topology)


def _set_gradient(parameter: Tensor, total: Tensor) -> None:
    """Give a parameter a float32 gradient. One of another dtype than the parameter's is only taken where Paddle makes it itself."""
    if parameter.dtype == paddle.float32:
        parameter.grad = total
        return
    parameter.grad = paddle.zeros(parameter.shape, parameter.dtype)
    paddle.base.core.eager.set_master_grads([parameter])  # what paddle.amp.decorate(master_grad=True) calls
    parameter.grad.add_(total)
