"""An adapter merged into the weights that it was trained beside, and the written model held to the two of them."""

import numpy as np
import paddle

from paddlealign.errors import UserError
from paddlealign.models.attention import packed_attention
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import merge
from paddlealign.models.weights import load_weights
from paddlealign.recipes.device import say

# How far logits or rewards may be from each other that are computed from the same numbers in another order, as a share of the largest.
ROUNDING = 1e-4
_ROWS, _LENGTH = 4, 32


def merge_adapter(model: Decoder) -> np.ndarray:
    """Add a model's adapter to its weights, and give what base and adapter computed apart: see ``probe``.

    model: in float32. Raises UserError where the merged weights do not give the same.
    """
    apart = probe(model)
    merge(model)
    _hold(model, probe(model), apart, "the weights with the adapter merged in, before they were written,")
    return apart


@paddle.no_grad()
def verify(model: Decoder, apart: np.ndarray, directory: str, dtype: str) -> None:
    """Read the written model and hold it to ``model`` rounded to ``dtype``; say how far it is from base and adapter.

    apart: see ``merge_adapter``. The model has the written weights afterwards. Raises UserError where the two differ beyond rounding.
    """
    for parameter in model.parameters():
        parameter.set_value(parameter.astype(getattr(paddle, dtype)).astype("float32"))
    rounded = probe(model)
    for parameter in model.parameters():
        parameter.zero_()
    load_weights(model, directory)
    written = probe(model)
    _hold(model, written, rounded, f"the model written to {directory}")
    say(
        f"verified: {directory} was read again; on {_ROWS} rows of {_LENGTH} tokens its {_said(model)} differ from those of base and "
        f"adapter by {_difference(written, apart):.1e} of the largest, which is the rounding to {dtype}"
    )


@paddle.no_grad()
def probe(model: Decoder) -> np.ndarray:
    """What the head says at each of some tokens that are the same for every model of a vocabulary: logits, float32 [tokens, vocab], or of
    a reward model rewards, [tokens].
    """
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (_ROWS, _LENGTH))
    positions = np.tile(np.arange(_LENGTH), (_ROWS, 1))
    attend = packed_attention(np.full((_ROWS, 1, _LENGTH, 1), _LENGTH, "int32"), positions)
    hidden = model(paddle.to_tensor(ids), paddle.to_tensor(positions), attend)
    flat = hidden.reshape([_ROWS * _LENGTH, -1])
    return (model.score(flat) if model.config.head == "score" else model.logits(flat)).astype("float32").numpy()


def _said(model: Decoder) -> str:
    return "rewards" if model.config.head == "score" else "logits"


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _hold(model: Decoder, found: np.ndarray, wanted: np.ndarray, what: str) -> None:
    difference = _difference(found, wanted)
    if not difference <= ROUNDING:
        raise UserError(
            f"{what} does not compute what base and adapter do: {_said(model)} differ by {difference:.1e} of the largest "
            f"(allowed: {ROUNDING:.0e}). Do not use it. Look for a full disk or failing memory; if that is not it, "
            "this is a fault of PaddleAlign: please report it"
        )
