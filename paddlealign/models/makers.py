"""What a decoder is given that knows of other processes: how they share its layers, and which of the layers a process holds."""

from collections.abc import Callable
from dataclasses import dataclass

from paddle import Tensor, nn

from paddlealign.models.head import collision_logps, token_logps


@dataclass(frozen=True)
class TensorLayers:
    """How the processes of a tensor axis share each layer. The weights of a layer are cut: see ``parameters.cut_axis``.

    parts, part: how many processes share, and which this is. positions: into how many parts the positions of a row are cut between the
    layers' matmuls, 1 or ``parts`` (sequence parallelism). spread: in front of weights whose outputs are cut, [rows, length / positions, n]
    to [rows, length, n]. collect: behind weights whose inputs are cut, each process's summand [rows, length, n] to the sum [rows, length /
    positions, n]. lookup: (ids, this process's rows of a table), each id's vector where it is one of these, else zeros. join: the last
    hidden states with all positions. token_logps, collision_logps: as in ``head``, with this process's part of the head and the size of the
    vocabulary without padding in addition. gather_logits: (logits of this process's part, size of the vocabulary without padding) to the
    logits of the whole vocabulary.
    """

    parts: int
    part: int
    positions: int
    spread: Callable[[Tensor], Tensor]
    collect: Callable[[Tensor], Tensor]
    lookup: Callable[[Tensor, Tensor], Tensor]
    join: Callable[[Tensor], Tensor]
    token_logps: Callable[[Tensor, Tensor, Tensor, bool, int], tuple[Tensor, Tensor]]
    gather_logits: Callable[[Tensor, int], Tensor]
    collision_logps: Callable[[Tensor, Tensor, bool, int], Tensor]


@dataclass(frozen=True)
class Visits:
    """Who is told of a decoder layer, so that its weights need not be here all the time.

    built: when it has been made, with the start of its parameters' names; its memory may be let go. enter: before it computes, in forward
    and once more before its backward, which computes it again; and whether gradients of its weights follow.
    """

    built: Callable[[str, nn.Layer], None]
    enter: Callable[[nn.Layer, bool], None]


@dataclass(frozen=True)
class Stage:
    """The layers from ``first`` to ``last`` - 1 that a process holds; with the first the embedding, with the last the norm and the head.

    A last stage that is not the first holds the embedding too where it is tied to the head.
    """

    first: int
    last: int


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _token_logps(hidden: Tensor, head: Tensor, target_ids: Tensor, vocabulary_first: bool, _: int) -> tuple[Tensor, Tensor]:
    return token_logps(hidden, head, target_ids, vocabulary_first)


def _gather_logits(logits: Tensor, _: int) -> Tensor:
    return logits


def _collision_logps(hidden: Tensor, head: Tensor, vocabulary_first: bool, _: int) -> Tensor:
    return collision_logps(hidden, head, vocabulary_first)


WHOLE_LAYERS = TensorLayers(
    1, 0, 1, _as_it_is, _as_it_is, nn.functional.embedding, _as_it_is, _token_logps, _gather_logits, _collision_logps
)
