"""The processes of one command: started and connected, told the same, and together one model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.arguments.fields import ParallelArguments
from paddlealign.arguments.results import PredictArguments, TrainArguments
from paddlealign.errors import UserError
from paddlealign.models.attention import Attend
from paddlealign.models.config import DecoderConfig
from paddlealign.models.decoder import Decoder
from paddlealign.models.incremental import Forward
from paddlealign.models.parameters import LoraSettings, cut_problem
from paddlealign.parallel.collect import agree, from_holder, sum_over
from paddlealign.parallel.pipeline import Chain, connect, run_forward_only
from paddlealign.parallel.stopping import STOP_CODES, StopRequest
from paddlealign.parallel.topology import Topology, start
from paddlealign.training.reference import weights_hash


def start_processes(parallel: ParallelArguments, shards: int = 1) -> tuple[Topology, Chain]:
    """Meet the other processes, once the device is chosen. Returns who they are, and the pipeline's stages as this one sees them.

    shards: see ``topology.start``.
    """
    degrees = (parallel.tensor_parallel_degree, parallel.pipeline_parallel_degree, parallel.data_parallel_degree)
    topology = start(*degrees, shards)
    return topology, connect(topology.pipeline)


def agree_on(arguments: TrainArguments | PredictArguments, topology: Topology, more: Mapping[str, str]) -> None:
    """See to it that all processes have the same files, before they compute anything together; ``entry`` has seen to the arguments.

    more: by what it is of, a text that must be the same, as a hash of the rows. Raises UserError.
    """
    if topology.world > 1:
        weights = weights_hash(Path(arguments.model.model_name_or_path), arguments.model.allow_pickle)
        agree(topology, {**more, "model's weights": weights})


def check_cut(config: DecoderConfig, parallel: ParallelArguments, shards: int = 1, lora: LoraSettings | None = None) -> None:
    """Raise UserError with ``parameters.cut_problem``."""
    problem = cut_problem(config, parallel.tensor_parallel_degree, parallel.pipeline_parallel_degree, shards, lora)
    if problem:
        raise UserError(problem)


def staged_forward(chain: Chain, dtype: str) -> Forward:
    """How generation runs a model whose layers the stages of the chain hold: what the last one finds is told to all. dtype: of the weights.

    Every stage gets the same bits, and so takes the same decisions. Under sequence parallelism a single new token could not be cut, so the
    rows lie one behind the other, as one, wherever attention is not concerned.
    """
    last = chain.axis.size - 1

    def forward(model: Decoder, input_ids: Tensor, position_ids: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
        (rows, length), cut, size = input_ids.shape, model.make.positions, model.config.hidden_size
        if cut > 1:
            input_ids, position_ids = (one_behind_the_other(it, cut) for it in (input_ids, position_ids))
            attend = in_rows(attend, rows, length, cut)
        shape = [*input_ids.shape, size]
        outputs: list[Tensor] = []

        def layers(_: int, received: Tensor | None) -> Tensor:
            outputs.append(model(input_ids if received is None else received, position_ids, attend))
            return outputs[0]

        run_forward_only(chain, [(shape[0], shape[1] // cut, size)], dtype, layers)
        hidden = from_holder(chain.axis, last, outputs[0], shape, dtype)
        if cut > 1:
            hidden = hidden[:, : rows * length].reshape([rows, length, size])
        logits = model.logits(hidden[:, -1]).astype(getattr(paddle, dtype)) if chain.is_last else None
        return hidden, from_holder(chain.axis, last, logits, [rows, model.config.vocab_size], dtype)

    return forward


def one_behind_the_other(tensor: Tensor, multiple: int) -> Tensor:
    """[rows, length, ...] to [1, rows * length and more, ...]: zeros follow up to a multiple of ``multiple``."""
    flat = tensor.reshape([1, tensor.shape[0] * tensor.shape[1], *tensor.shape[2:]])
    spare = -flat.shape[1] % multiple
    return paddle.concat([flat, paddle.zeros([1, spare, *flat.shape[2:]], flat.dtype)], axis=1) if spare else flat


def in_rows(attend: Attend, rows: int, length: int, multiple: int) -> Attend:
    """``attend`` for rows that lie ``one_behind_the_other``, and so do its results."""

    def attend_flat(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        q, k, v = (it[:, : rows * length].reshape([rows, length, *it.shape[2:]]) for it in (q, k, v))
        return one_behind_the_other(attend(layer, q, k, v, window), multiple)

    return attend_flat


def stop_code(topology: Topology, request: StopRequest) -> int:
    """The exit code to stop with where any process was asked to, else 0: the same in all, which call it together."""
    asked = sum_over(topology.everyone, np.array([number in request.numbers for number in STOP_CODES]))
    code = next((code for code, count in zip(STOP_CODES.values(), asked, strict=True) if count), 0)
    if code:
        request.join_in()
    return code
