"""Log-probs under the frozen reference: computed once and kept on disk, or anew for each batch from a copy in memory."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor
from tqdm import tqdm

from paddlealign.data.encoding import examples_hash
from paddlealign.data.example import Batch, Example
from paddlealign.data.packing import idle_batch, make_batch, pack_rows
from paddlealign.errors import UserError
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import read_tensors, write_tensors
from paddlealign.models.weights import find_weights
from paddlealign.parallel.collect import sum_over
from paddlealign.parallel.pipeline import LONE_CHAIN, Chain, from_last
from paddlealign.parallel.topology import SINGLE, Topology
from paddlealign.training.objective import Reference, weighted_logps
from paddlealign.training.precision import Precision
from paddlealign.training.score import score_without_gradient

# A packed row for the reference holds this many tokens, or one example where that is longer.
ROW_TOKENS = 2048


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


def fingerprint(examples: Sequence[Example], weights: str, dtype: str, ld_alpha: float = 1.0) -> str:
    """A name for the reference's log-probs of these examples: a hash of all that they depend on, 32 hexadecimal digits.

    The examples' tokens stand for data, tokenizer, template, lengths and truncation at once. weights: of ``weights_hash``. dtype: of
    the computation. ld_alpha: see ``objective.weighted_logps``.
    """
    weighed = f" ld_alpha {ld_alpha}" if ld_alpha != 1.0 else ""
    return hashlib.sha256(f"paddlealign reference 1 {dtype}{weighed} {weights} {examples_hash(examples)}".encode()).hexdigest()[:32]


def compute_logps(
    model: Decoder,
    examples: Sequence[Example],
    pad_id: int,
    precision: Precision,
    what: str,
    show: bool,
    topology: Topology = SINGLE,
    chain: Chain = LONE_CHAIN,
    ld_alpha: float = 1.0,
) -> np.ndarray:
    """Log-probs of every response of preference examples: float32 [examples, 2]. what: the bar's label; show: whether there is one.

    Processes that read different rows share the work; all get the whole table. ld_alpha: see ``objective.weighted_logps``.
    """
    lengths = [example.length for example in examples]
    rows = pack_rows(lengths, max(ROW_TOKENS, *lengths), best_fit=True)
    logps = np.zeros((len(examples), 2), "float32")
    data = topology.data
    for start in tqdm(range(0, len(rows), data.size), desc=what, unit="row", leave=False, disable=None if show else True):
        mine = rows[start + data.rank : start + data.rank + 1]
        batch = make_batch(examples, mine, pad_id) if mine else idle_batch(pad_id)
        found = model_logps(model, batch, precision, chain, ld_alpha)
        if mine:
            logps[batch.example_ids] = found.reshape(-1, 2)
    return sum_over(topology.data, logps).astype("float32")


def model_logps(model: Decoder, batch: Batch, precision: Precision, chain: Chain = LONE_CHAIN, ld_alpha: float = 1.0) -> np.ndarray:
    """Log-probs of the batch's responses under a model, without a gradient: float32 [responses], the same in all stages of the chain.

    ld_alpha: see ``objective.weighted_logps``.
    """
    found = np.zeros(batch.response_count, "float32")
    scores = score_without_gradient(model, batch, precision, chain)
    if scores is not None:
        found = weighted_logps(scores, ld_alpha if len(batch.example_ids) else 1.0).numpy()
    return from_last(chain, found).astype("float32")


def read_cache(folder: Path, name: str, examples: int) -> np.ndarray | None:
    """Cached log-probs of that fingerprint, float32 [examples, 2], or None where there are none that can be used."""
    path = _cache_file(folder, name)
    if not path.exists():
        return None
    try:
        logps = read_tensors(path).get("logps")
    except UserError:  # damaged; they are computed again
        return None
    return logps if logps is not None and logps.shape == (examples, 2) else None


def write_cache(folder: Path, name: str, logps: np.ndarray) -> None:
    """Keep log-probs under their fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(_cache_file(folder, name), {"logps": logps}, {"fingerprint": name})


def _cache_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def table_reference(table: np.ndarray) -> Reference:
    """A reference that looks its numbers up: log-probs float32 [examples, 2], or one number for each example, float32 [examples]."""
    return lambda batch: paddle.to_tensor(table[batch.example_ids].reshape(-1))


def adapter_reference(
    model: Decoder, start: Mapping[str, Tensor] | None, precision: Precision, chain: Chain = LONE_CHAIN, ld_alpha: float = 1.0
) -> Reference:
    """A reference that is the policy with another adapter than the one that is trained, so that no second model is in memory.

    start: the values of that adapter, by name, such as those that training started from; None: the policy without an adapter.
    """
    adapter = model.adapter
    assert adapter is not None

    def reference(batch: Batch) -> Tensor:
        if start is None:
            with adapter.off():
                return paddle.to_tensor(model_logps(model, batch, precision, chain, ld_alpha))
        trained = {name: parameter.clone() for name, parameter in model.trained()}
        _put(model, start)
        try:
            return paddle.to_tensor(model_logps(model, batch, precision, chain, ld_alpha))
        finally:
            _put(model, trained)

    return reference


@paddle.no_grad()
def _put(model: Decoder, values: Mapping[str, Tensor]) -> None:
    for name, parameter in model.trained():
        parameter.set_value(values[name])


def model_reference(model: Decoder, precision: Precision, chain: Chain = LONE_CHAIN, ld_alpha: float = 1.0) -> Reference:
    """A reference that computes its log-probs for each batch with a frozen model."""
    return lambda batch: paddle.to_tensor(model_logps(model, batch, precision, chain, ld_alpha))
