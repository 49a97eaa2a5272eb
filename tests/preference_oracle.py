"""Preference losses in float64 NumPy, written from the papers and not from the code, and the code run on the same log-probs."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle

from paddlealign.arguments.losses import LOSSES
from paddlealign.data.example import Batch
from paddlealign.objectives.pairs import Coefficients
from paddlealign.training.objective import Objective, kto_objective, preference_objective
from paddlealign.training.score import Scores
from paddlealign.training.step import Sums

GOLDEN = json.loads((Path(__file__).parent / "parity" / "golden" / "objectives.json").read_text("utf-8"))
NUMBERS: dict[str, Any] = {
    "beta": 0.3, "label_smoothing": 0.1, "simpo_gamma": 0.7, "dpop_lambda": 2.0, "discopop_tau": 0.1, "ipo_average": "token",
}  # fmt: skip
Tokens = list[list[np.ndarray]]  # log-probs [pair][chosen, rejected][token]


class Seen(NamedTuple):
    """What an oracle looks at: log-probs of answers [pairs, 2] under policy and reference (zeros without one), and tokens of each answer.

    still: the policy's again, where no gradient goes through it. whole: the policy's, whatever ld_alpha is.
    """

    policy: np.ndarray
    reference: np.ndarray
    lengths: np.ndarray
    still: np.ndarray
    whole: np.ndarray


Oracle = Callable[[Seen, dict[str, Any]], np.ndarray]


def s(x: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return np.exp(-np.logaddexp(0, -x))


def ls(x: np.ndarray) -> np.ndarray:
    """Its logarithm."""
    return -np.logaddexp(0, -x)


def f_score(u: np.ndarray, k: dict[str, Any]) -> np.ndarray:
    """f'(t) at t = e^u, from the table of the f-DPO paper; its alpha is 1 - a."""
    t, kind, a = np.exp(u), k.get("f_divergence_type", "reverse_kl"), k.get("f_alpha_divergence_coef", 0.5)
    if kind == "forward_kl":
        return 1 - 1 / t
    if kind == "js_divergence":
        return np.log(2 * t / (1 + t))
    if kind == "alpha_divergence":
        return (t ** (a - 1) - 1) / (a - 1) if a != 1 else u
    return u


def d(seen: Seen, k: dict[str, Any], per_token: bool = False) -> np.ndarray:
    scores = f_score(seen.policy - seen.reference, k)
    scores = scores / seen.lengths if per_token else scores
    return scores[:, 0] - scores[:, 1]


def bce(m: np.ndarray, k: dict[str, Any]) -> np.ndarray:
    e = k.get("label_smoothing", 0.0)
    return -(1 - e) * ls(m) - e * ls(-m)


def robust(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    m, e = k["beta"] * d(seen, k), k["label_smoothing"]
    return (-(1 - e) * ls(m) + e * ls(-m)) / (1 - 2 * e)


def exo(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    q, e = s(k["beta"] * d(seen, k)), k["label_smoothing"]
    return q * np.log(q / (1 - e)) + (1 - q) * np.log((1 - q) / e)


def discopop(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    m = k["beta"] * d(seen, k)
    gate = s(m / k["discopop_tau"])
    return (1 - gate) * -ls(m) + gate * np.exp(-m)


def ratios(seen: Seen) -> np.ndarray:
    return (seen.policy - seen.reference).T


def dpop(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    c, r = ratios(seen)
    return -ls(k["beta"] * (c - r - k["dpop_lambda"] * np.maximum(0, -c)))


def nca(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    c, r = k["beta"] * ratios(seen)
    return -ls(c) - 0.5 * ls(-c) - 0.5 * ls(-r)


def sppo(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    c, r = ratios(seen)
    return (c - 0.5 / k["beta"]) ** 2 + (r + 0.5 / k["beta"]) ** 2


def apo_zero(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    c, r = k["beta"] * ratios(seen)
    return 1 - s(c) + s(r)


def apo_down(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    c, r = k["beta"] * ratios(seen)
    return s(c) + 1 - s(c - r)


def kto_pair(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    c, r = ratios(seen)
    kl_chosen, kl_rejected = np.maximum((seen.still - seen.reference).mean(0), 0)
    return 0.5 * (1 - s(k["beta"] * (c - kl_rejected)) + 1 - s(k["beta"] * (kl_chosen - r)))


def bco_pair(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    c, r = k["beta"] * ratios(seen)
    delta = k["beta"] * (seen.still - seen.reference).mean()
    return -ls(c - delta) - ls(-(r - delta))


def aot(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    policy, reference = seen.policy[:, 0] - seen.policy[:, 1], seen.reference[:, 0] - seen.reference[:, 1]
    return bce(k["beta"] * (np.sort(policy) - np.sort(reference)), k)


def aot_unpaired(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    c, r = ratios(seen)
    return bce(k["beta"] * (np.sort(c) - np.sort(r)), k)


def simpo(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    mean = (seen.policy / seen.lengths).T
    return bce(k["beta"] * (mean[0] - mean[1]) - k["simpo_gamma"], k)


def orpo(seen: Seen, k: dict[str, Any]) -> np.ndarray:
    p = np.exp(seen.policy / seen.lengths)
    odds = p / (1 - p)
    return -ls(np.log(odds[:, 0] / odds[:, 1]))


ORACLES: dict[str, Oracle] = {
    "sigmoid": lambda seen, k: bce(k["beta"] * d(seen, k), k),
    "sigmoid_norm": lambda seen, k: bce(k["beta"] * d(seen, k, per_token=True), k),
    "robust": robust,
    "hinge": lambda seen, k: np.maximum(0, 1 - k["beta"] * d(seen, k)),
    "ipo": lambda seen, k: (d(seen, k, k.get("ipo_average", "token") == "token") - 1 / (2 * k["beta"])) ** 2,
    "exo_pair": exo,
    "discopop": discopop,
    "dpop": dpop,
    "nca_pair": nca,
    "sppo_hard": sppo,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "kto_pair": kto_pair,
    "bco_pair": bco_pair,
    "aot": aot,
    "aot_unpaired": aot_unpaired,
    "simpo": simpo,
    "cpo": lambda seen, k: bce(k["beta"] * (seen.policy[:, 0] - seen.policy[:, 1]), k),
    "orpo": orpo,
    "sft": lambda seen, k: -seen.whole[:, 0] * len(seen.whole) / seen.lengths[:, 0].sum(),
    "sft_norm": lambda seen, k: -seen.whole[:, 0] / seen.lengths[:, 0],
}


def answers(tokens: Tokens, ld_alpha: float) -> np.ndarray:
    """Log-probs of the answers [pairs, 2]; what a longer answer has beyond the shorter one's length counts ld_alpha."""
    shorter = [min(map(len, pair)) for pair in tokens]
    return np.array([[side[:n].sum() + ld_alpha * side[n:].sum() for side in pair] for pair, n in zip(tokens, shorter, strict=True)])


def oracle(
    tokens: Tokens,
    reference: np.ndarray | None,
    weights: Mapping[str, float],
    numbers: dict[str, Any],
    ld_alpha: float = 1.0,
    collisions: Tokens | None = None,
):
    """The mean loss of the pairs, and its gradient by every token's log-prob. collisions: log sum_v p(v)^2 of each token, for WPO."""
    fixed = 1.0 if collisions is None else wpo_weights(tokens, collisions)

    def loss(seen: Seen) -> float:
        each = {name: ORACLES[name](seen, numbers) * (1.0 if name.startswith("sft") else fixed) for name in weights}
        return sum(weight * each[name].mean() for name, weight in weights.items())

    return with_slope(tokens, reference, ld_alpha, loss)


def wpo_weights(tokens: Tokens, collisions: Tokens) -> np.ndarray:
    """exp(mean over tokens of log p - log sum_v p(v)^2), of both answers multiplied."""
    means = [[(side - other).mean() for side, other in zip(*pair, strict=True)] for pair in zip(tokens, collisions, strict=True)]
    return np.exp(np.array(means).sum(1))


def with_slope(tokens: Tokens, reference: np.ndarray | None, ld_alpha: float, loss_of: Callable[[Seen], float]) -> tuple[float, np.ndarray]:
    """A loss, and its gradient by every token's log-prob by central differences."""
    lengths = np.array([[len(side) for side in pair] for pair in tokens])
    still = answers(tokens, ld_alpha)
    against = np.zeros_like(still) if reference is None else reference

    def loss(moved: Tokens) -> float:
        return loss_of(Seen(answers(moved, ld_alpha), against, lengths, still, answers(moved, 1.0)))

    step, gradient = 1e-5, []
    for pair in range(len(tokens)):
        for side in range(2):
            for place in range(lengths[pair, side]):
                ends = []
                for sign in (1, -1):
                    moved = [[array.copy() for array in row] for row in tokens]
                    moved[pair][side][place] += sign * step
                    ends.append(loss(moved))
                gradient.append((ends[0] - ends[1]) / (2 * step))
    return loss(tokens), np.array(gradient)


def ours(
    tokens: Tokens,
    reference: np.ndarray | None,
    weights: Mapping[str, float],
    numbers: dict[str, Any],
    ld_alpha: float = 1.0,
    context: np.ndarray | None = None,
    collisions: Tokens | None = None,
) -> tuple[float, np.ndarray, dict[str, dict[str, float]]]:
    """The same from the code, all pairs in one batch, and the metrics' sums. context: in place of the whole step's."""
    ref = None if reference is None else paddle.to_tensor(reference.astype("float32").reshape(-1))
    objective = preference_objective(lambda batch: ref, weights, Coefficients(**numbers), ld_alpha, collisions is not None)
    return run_objective(tokens, objective, context, collisions)


def run_objective(
    tokens: Tokens, objective: Objective, context: np.ndarray | None = None, collisions: Tokens | None = None
) -> tuple[float, np.ndarray, dict[str, dict[str, float]]]:
    """Loss, gradient by every token, and sums of an objective whose batch is these answers."""
    flat = [side for pair in tokens for side in pair]
    owner = np.repeat(np.arange(len(flat)), [len(side) for side in flat])
    logps = paddle.to_tensor(np.concatenate(flat).astype("float32"), stop_gradient=False)
    seen = (
        None if collisions is None else paddle.to_tensor(np.concatenate([side for pair in collisions for side in pair]).astype("float32"))
    )
    scores = Scores(logps, paddle.zeros([len(owner)], "bool"), paddle.to_tensor(owner), paddle.zeros([0]), len(flat), seen)
    empty = np.zeros(0, np.int64)
    batch = Batch(empty, empty, empty, empty, empty, owner, empty, np.arange(len(tokens)), len(flat), 0)
    held = objective.reference(batch)
    if context is None and objective.whole_step is not None:
        context = objective.whole_step.context(objective.whole_step.observe(scores, held))
    sums = objective.loss(scores, held, None if context is None else paddle.to_tensor(context.astype("float32")))
    loss = sums.loss({per: count(batch) for per, count in objective.counts.items()})
    loss.backward()
    assert logps.grad is not None
    found = {per: {name: float(value) for name, value in values.items()} for per, values in sums.values.items()}
    return float(loss), logps.grad.numpy(), found


def kto(seen: Seen, k: dict[str, Any], labels: np.ndarray) -> np.ndarray:
    """The loss of each row; the second answers are those of other prompts."""
    u, z = (seen.policy - seen.reference)[:, 0], max(0.0, (seen.still - seen.reference)[:, 1].mean())
    return np.where(labels, k["desirable_weight"] * (1 - s(k["beta"] * (u - z))), k["undesirable_weight"] * (1 - s(k["beta"] * (z - u))))


def our_kto(tokens: Tokens, reference: np.ndarray, labels: np.ndarray, numbers: dict[str, float]):
    """KTO from the code."""
    held = paddle.to_tensor(reference.astype("float32").reshape(-1))
    return run_objective(tokens, kto_objective(lambda batch: held, labels, **numbers))


def draw(pairs: int, seed: int, longest: int = 9, spread: float = 3.0) -> tuple[Tokens, np.ndarray]:
    """Random tokens' log-probs, and the reference's log-probs of the answers; every number is a float32."""
    rng = np.random.default_rng(seed)
    tokens = [[-rng.uniform(0.01, 3, rng.integers(1, longest + 1)).astype("float32").astype(float) for _ in range(2)] for _ in range(pairs)]
    reference = np.array([[side.sum() for side in pair] for pair in tokens]) + rng.normal(0, spread, (pairs, 2))
    return tokens, reference.astype("float32").astype(float)


def difference(ours: float | np.ndarray, theirs: float | np.ndarray) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def reads(name: str) -> dict[str, Any]:
    """Those of NUMBERS that the loss reads."""
    return {key: value for key, value in NUMBERS.items() if key in LOSSES[name].reads}


def from_oracle(name: str, seed: int) -> float:
    """How far a loss and its gradient are from the oracle's on seven random pairs."""
    tokens, drawn = draw(7, seed)
    reference = None if LOSSES[name].compares == "policy" else drawn
    found, wanted = ours(tokens, reference, {name: 1.0}, reads(name)), oracle(tokens, reference, {name: 1.0}, reads(name))
    return max(difference(found[0], wanted[0]), difference(found[1], wanted[1]))


def from_trl(case_name: str) -> float:
    """How far loss and gradient are from TRL's in a case of scripts/golden/objectives.py."""
    case = GOLDEN["trl"][case_name]
    tokens = [[np.array(side) for side in pair] for pair in GOLDEN["tokens"]]
    reference = None if all(LOSSES[loss].compares == "policy" for loss in case["weights"]) else np.array(GOLDEN["reference"])
    context = np.zeros((len(tokens), 2)) if case_name == "bco_pair without delta" else None
    # As scripts/golden/objectives.py makes them up.
    collisions = [[0.6 * side - 0.2 for side in pair] for pair in tokens] if case.get("use_weighting") else None
    found = ours(tokens, reference, case["weights"], case["numbers"], case.get("ld_alpha", 1.0), context, collisions)
    slope = np.concatenate([side for pair in case["gradient"] for side in pair])
    return max(difference(found[0], case["loss"]), difference(found[1], slope))


def kto_from_oracle(seed: int) -> float:
    """How far KTO and its gradient are from the oracle's on seven random rows."""
    tokens, reference = draw(7, seed)
    labels = np.random.default_rng(seed).random(7) < 0.5
    numbers = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    found = our_kto(tokens, reference, labels, numbers)
    wanted = with_slope(tokens, reference, 1.0, lambda seen: kto(seen, numbers, labels).mean())
    return max(difference(found[0], wanted[0]), difference(found[1], wanted[1]))


def kto_from_trl(case_name: str) -> float:
    """How far loss, gradient and metrics are from TRL's in a case of scripts/golden/objectives.py."""
    case = GOLDEN["trl kto"][case_name]
    tokens, labels = [[np.array(side) for side in pair] for pair in GOLDEN["tokens"]], case["labels"]
    loss, gradient, sums = our_kto(tokens, np.array(GOLDEN["reference"]), np.array(labels), case["numbers"])
    counts = {"examples": len(labels), "desirable": sum(labels), "undesirable": len(labels) - sum(labels)}
    means = Sums(sums, counts, 0, 0).means()
    metrics = [difference(np.array([means[key]]), np.array([value])) for key, value in case["metrics"].items()]
    slope = np.concatenate([side for pair in case["gradient"] for side in pair])
    return max(difference(loss, case["loss"]), difference(gradient, slope), *metrics)
