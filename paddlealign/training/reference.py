"""References: functions that say what a batch is held against. Here those that compute it, and tables in which it is looked up."""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.data.example import Batch
from paddlealign.models.decoder import Decoder
from paddlealign.models.other_adapter import OtherAdapter, worn
from paddlealign.models.weights import find_weights
from paddlealign.parallel.pipeline import LONE_CHAIN, Chain, from_last
from paddlealign.training.objective import Reference, weighted_logps
from paddlealign.training.precision import Precision
from paddlealign.training.score import score_without_gradient


def weights_hash(model_dir: Path, allow_pickle: bool = False) -> str:
    """A sha256 (hex) over the bytes of a model folder's config.json and weights. allow_pickle: see ``weight_files.find_tensors``."""
    return files_hash([model_dir / "config.json", *sorted(set(find_weights(model_dir, allow_pickle).values()))])


def files_hash(paths: Sequence[Path]) -> str:
    """A sha256 (hex) over the bytes of files, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def model_logps(model: Decoder, batch: Batch, precision: Precision, chain: Chain = LONE_CHAIN, ld_alpha: float = 1.0) -> np.ndarray:
    """Log-probs of the batch's responses under a model, without a gradient: float32 [responses], the same in all stages of the chain.

    ld_alpha: see ``objective.weighted_logps``.
    """
    found = np.zeros(batch.response_count, "float32")
    scores = score_without_gradient(model, batch, precision, chain)
    if scores is not None:
        found = weighted_logps(scores, ld_alpha if len(batch.example_ids) else 1.0).numpy()
    return from_last(chain, found).astype("float32")


def table_reference(table: np.ndarray) -> Reference:
    """A reference that looks its numbers up: log-probs float32 [examples, 2], or one number for each example, float32 [examples]."""
    return lambda batch: paddle.to_tensor(table[batch.example_ids].reshape(-1))


def model_reference(
    model: Decoder, precision: Precision, chain: Chain = LONE_CHAIN, ld_alpha: float = 1.0, other: OtherAdapter | None = None
) -> Reference:
    """A reference that computes its log-probs for each batch with a model.

    other: the adapter that the model, which may be the policy itself, has meanwhile; None: it stays as it is.
    """

    def reference(batch: Batch) -> Tensor:
        with nullcontext() if other is None else worn(model, other):
            return paddle.to_tensor(model_logps(model, batch, precision, chain, ld_alpha))

    return reference
