"""Hold every model family to HuggingFace transformers on tiny checkpoints, and write docs/models.md's table from what was measured.

    python -m scripts.models_page docs/models.md            measure, and write the table into the page
    python -m scripts.models_page docs/models.md --check    measure, and fail where the page claims what does not hold

The checkpoints and transformers' figures lie in tests/parity/golden (scripts/golden/logits.py made them). Each figure is the largest
difference anywhere, as a share of the largest value: of the logits, of the log-probs, of a parameter's gradient.
"""

import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from paddlealign.machine import prepare

prepare()

import paddle

from paddlealign.data.example import Example, Response
from paddlealign.data.packing import make_batch
from paddlealign.models.attention import packed_attention
from paddlealign.models.cache import KeyValueCache
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.families import FAMILIES
from paddlealign.models.incremental import pad_left
from paddlealign.models.layout import segments, stored_tensors
from paddlealign.models.weights import load_model
from paddlealign.training.score import run_head, run_layers

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "parity" / "golden"
NAMES = tuple(sorted(path.parent.name for path in GOLDEN.glob("*/golden.npz")))
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
# How much worse than the page says a figure may be on another machine, whose kernels add in another order.
SLACK = 5.0


@dataclass(frozen=True)
class Figures:
    """What was measured on one checkpoint. Figures below FLOOR are written as that."""

    logits: float
    loss: float
    gradients: float
    long: float
    padded: float
    branched: float


# The claims: logits to 2e-5 of the largest, gradients to 1e-4 of each parameter's largest.
LIMITS = Figures(logits=2e-5, loss=1e-6, gradients=1e-4, long=2e-5, padded=2e-5, branched=2e-5)
FLOOR = 1e-7


def measure(directory: Path) -> Figures:
    """Hold one checkpoint to its golden file."""
    golden = dict(np.load(directory / "golden.npz"))
    model = load_model(directory, "float32")
    logits = causal_logits(model, golden["input_ids"])
    labels = paddle.to_tensor(golden["input_ids"][:, 1:].reshape(-1))
    loss = paddle.nn.functional.cross_entropy(logits[:, :-1].reshape([-1, logits.shape[-1]]), labels)
    loss.backward()
    gradients = worst_gradient(model, golden)
    with paddle.no_grad():
        return Figures(
            logits=share(logits.numpy(), golden["logits"]),
            loss=share(loss.numpy(), golden["loss"]),
            gradients=gradients,
            long=share(causal_logits(model, golden["long input_ids"]).numpy(), golden["long logits"]),
            padded=share(padded_logits(model, golden), golden["padded logits"]),
            branched=branched_logps(model, golden),
        )


def share(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def causal_logits(model: Decoder, input_ids: np.ndarray) -> paddle.Tensor:
    """Logits [rows, length, vocab] of plain rows."""
    rows, length = input_ids.shape
    position_ids = np.tile(np.arange(length), (rows, 1))
    attend = packed_attention(np.full([rows, 1, length, 1], length, "int32"), position_ids)
    return model.logits(model(paddle.to_tensor(input_ids), paddle.to_tensor(position_ids), attend))


def stored_gradients(model: Decoder) -> dict[str, np.ndarray]:
    """Every parameter's gradient under the name and in the shape that the family's files have for the parameter."""
    parameters = dict(model.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    found = {}
    for tensor in stored_tensors(shapes, FAMILIES[model.config.family].layout, model.config.num_heads):
        parts = [parameters[part].grad.numpy() for part in tensor.parts]
        parts = [part.T if part.ndim == 2 and "embed_tokens" not in tensor.parts[0] else part for part in parts]
        rows = segments([len(part) for part in parts], tensor.groups)
        found[tensor.name] = np.concatenate([parts[part][first : first + count] for part, first, _, count in rows])
    return found


def worst_gradient(model: Decoder, golden: dict[str, np.ndarray]) -> float:
    """The worst difference of a parameter's gradient, as a share of that gradient's largest value.

    A bias of the keys moves every score of a query alike, so its gradient is zero in truth and rounding here and there: a gradient below
    a thousandth of the model's largest is held to that.
    """
    expected = {name.removeprefix("gradient "): array for name, array in golden.items() if name.startswith("gradient ")}
    ours = stored_gradients(model)
    if ours.keys() != expected.keys():
        raise AssertionError(f"parameters differ: {sorted(ours.keys() ^ expected.keys())}")
    least = 1e-3 * max(np.abs(array).max() for array in expected.values())
    return max(float(np.abs(ours[name] - array).max() / max(np.abs(array).max(), least)) for name, array in expected.items())


def padded_logits(model: Decoder, golden: dict[str, np.ndarray]) -> np.ndarray:
    """Logits [rows, vocab] after each of some left-padded rows, the last token of each through the cache."""
    rows = [golden[f"padded {number}"] for number in range(len(golden["padded logits"]))]
    input_ids, position_ids, visible = pad_left([row[:-1].tolist() for row in rows])
    cache = KeyValueCache(visible)
    model(paddle.to_tensor(input_ids), paddle.to_tensor(position_ids), cache.attend_prompt)
    cache.make_room()
    last, places = (paddle.to_tensor(np.array(values)[:, None]) for values in ([row[-1] for row in rows], [len(row) - 1 for row in rows]))
    return model.logits(model(last, places, cache.attend_token)[:, -1]).numpy()


def branched_logps(model: Decoder, golden: dict[str, np.ndarray]) -> float:
    """The worst difference of the responses' token log-probs, where all pairs are packed and each prompt is laid down once.

    Rotary embeddings that depend on the text's length cannot share a prompt beyond the trained length; there each response has its own.
    """
    examples, expected = [], []
    for number in range(3):
        prompt = golden[f"pair {number} prompt"].astype("int32")
        sides = [golden[f"pair {number} {side}"].astype("int32") for side in ("chosen", "rejected")]
        responses = tuple(Response(ids, np.ones(len(ids), bool)) for ids in sides)
        if model.config.rope.kind == "dynamic":
            examples += [Example(prompt, (response,)) for response in responses]
        else:
            examples.append(Example(prompt, responses))
        expected += [golden[f"pair {number} {side} logps"] for side in ("chosen", "rejected")]
    batch = make_batch(examples, [range(len(examples))], 0)
    return share(run_head(model, batch, run_layers(model, batch)).token_logps.numpy(), np.concatenate(expected))


def describe(config: DecoderConfig) -> str:
    """What is special about a checkpoint, in few words."""
    said = [f"rope {config.rope.kind}" if config.rope.kind != "default" else ""]
    said += [f"rotary share {config.rope.dim / config.head_dim:g}" if config.rope.dim < config.head_dim else ""]
    windows = {size for size in config.windows if size is not None}
    said += [
        f"window {windows.pop()} in {sum(size is not None for size in config.windows)} of {config.num_layers} layers" if windows else ""
    ]
    said += ["tied" if config.tie_embeddings else "", "q/k norms" if config.qk_norm else ""]
    said += [f"{config.num_heads} heads, {config.num_kv_heads} for keys" if config.num_kv_heads < config.num_heads else ""]
    said += ["head_dim apart" if config.head_dim * config.num_heads != config.hidden_size else ""]
    said += ["q/k/v biases" if config.qkv_bias and not config.output_bias else "", "attention biases" if config.output_bias else ""]
    said += ["MLP biases" if config.mlp_bias else "", "LayerNorm" if config.norm == "layer" else ""]
    said += ["parallel residual" if config.parallel_residual else "", config.activation if config.activation != "swiglu" else ""]
    return ", ".join([*filter(None, said), f"stored {config.dtype}"])


def table(measured: dict[str, Figures]) -> str:
    """The page's table."""
    names = [field.name for field in fields(Figures)]
    lines = [f"| family | checkpoint | {' | '.join(names)} |", f"|---|---|{'---:|' * len(names)}"]
    for name, figures in measured.items():
        config = read_config(GOLDEN / name)
        cells = [f"{max(getattr(figures, field), FLOOR):.0e}" for field in names]
        lines.append(f"| {config.family} | `{name}`: {describe(config)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def read_table(page: str) -> dict[str, Figures]:
    """The figures that the page claims, by checkpoint."""
    rows = [line for line in page.split(BEGIN)[1].split(END)[0].splitlines() if "`" in line]
    return {row.split("`")[1]: Figures(*(float(cell) for cell in row.split("|")[3:-1])) for row in rows}


def faults(measured: dict[str, Figures], claimed: dict[str, Figures]) -> list[str]:
    """Where the claims do not hold: a checkpoint that is in one only, or a figure beyond its limit or far beyond what the page says."""
    found = [f"{name} is not in the page and in the measurements alike" for name in measured.keys() ^ claimed.keys()]
    for name in measured.keys() & claimed.keys():
        for field in fields(Figures):
            value, told, limit = (getattr(figures, field.name) for figures in (measured[name], claimed[name], LIMITS))
            if not value <= min(limit, SLACK * told):
                found.append(f"{name}: {field.name} is {value:.1e}; the page says {told:.0e}, the limit is {limit:.0e}")
    return found


def main(path: Path, check: bool) -> int:
    """Measure all checkpoints; write the page's table, or hold the page to the measurements."""
    measured = {name: measure(GOLDEN / name) for name in NAMES}
    page = path.read_text("utf-8")
    if not check:
        path.write_text(page.split(BEGIN)[0] + f"{BEGIN}\n{table(measured)}\n{END}" + page.split(END)[1], "utf-8")
    found = faults(measured, measured if not check else read_table(page))
    print(table(measured), *found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--check" in sys.argv[2:]))
