"""An adapter merged into the weights that it was trained beside, and the written model held to the two of them."""

import numpy as np
import paddle

from paddlealign.errors import UserError
from paddlealign.models.adapter_files import read_values
from paddlealign.models.attention import packed_attention
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import attach, fill, merge
from paddlealign.models.parameters import LoraSettings
from paddlealign.models.weights import load_model, load_weights
from paddlealign.recipes.device import say

# How far logits may be from each other that are computed from the same numbers in another order, as a share of the largest.
ROUNDING = 1e-4
_ROWS, _LENGTH = 4, 32


def merged_model(folder: str, lora_path: str, settings: LoraSettings, allow_pickle: bool) -> tuple[Decoder, np.ndarray]:
    """The base model in float32 with the adapter added to its weights, and the logits of base and adapter apart.

    Raises UserError where the merged weights do not give the same.
    """
    model = load_model(folder, "float32", allow_pickle=allow_pickle)
    attach(model, settings, folder)
    fill(model, read_values(lora_path, model.config, settings))
    apart = probe_logits(model)
    merge(model)
    _hold(probe_logits(model), apart, "the weights with the adapter merged in, before they were written,")
    return model, apart


@paddle.no_grad()
def verify(model: Decoder, apart: np.ndarray, directory: str, dtype: str) -> None:
    """Read the written model and hold its logits to those of ``model`` rounded to ``dtype``; say how far they are from the adapter's.

    apart: see ``merged_model``. The model has the written weights afterwards. Raises UserError where the two differ beyond rounding.
    """
    for parameter in model.parameters():
        parameter.set_value(parameter.astype(getattr(paddle, dtype)).astype("float32"))
    rounded = probe_logits(model)
    for parameter in model.parameters():
        parameter.zero_()
    load_weights(model, directory)
    written = probe_logits(model)
    _hold(written, rounded, f"the model written to {directory}")
    say(
        f"verified: {directory} was read again; on {_ROWS} rows of {_LENGTH} tokens its logits differ from those of base and adapter by "
        f"{_difference(written, apart):.1e} of the largest, which is the rounding to {dtype}"
    )


@paddle.no_grad()
def probe_logits(model: Decoder) -> np.ndarray:
    """Logits of some rows of tokens that are the same for every model of a vocabulary: float32 [tokens, vocab]."""
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (_ROWS, _LENGTH))
    positions = np.tile(np.arange(_LENGTH), (_ROWS, 1))
    attend = packed_attention(np.full((_ROWS, 1, _LENGTH, 1), _LENGTH, "int32"), positions)
    hidden = model(paddle.to_tensor(ids), paddle.to_tensor(positions), attend)
    return model.logits(hidden).astype("float32").numpy().reshape([-1, model.config.vocab_size])


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _hold(found: np.ndarray, wanted: np.ndarray, what: str) -> None:
    difference = _difference(found, wanted)
    if not difference <= ROUNDING:
        raise UserError(
            f"{what} does not compute what base and adapter do: logits differ by {difference:.1e} of the largest (allowed: "
            f"{ROUNDING:.0e}). Do not use it. Look for a full disk or failing memory; if that is not it, "
            "this is a fault of PaddleAlign: please report it"
        )
