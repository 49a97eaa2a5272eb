"""What each preference loss reads and asks for; the formulas stand in paddlealign/objectives/preference.py, under the same names."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Loss:
    """One value of ``loss_type``.

    compares: what it looks at: the "difference" of the two answers' log-ratios to the reference, so that a reference which says the same of
    all answers drops out; each of the two "ratios" by itself; or the "policy" alone, without a reference. reads: the objective's keys that
    its formula reads.
    """

    compares: Literal["difference", "ratios", "policy"]
    reads: tuple[str, ...]


LOSSES: dict[str, Loss] = {
    "sigmoid": Loss("difference", ("beta", "label_smoothing")),
    "sigmoid_norm": Loss("difference", ("beta", "label_smoothing")),
    "robust": Loss("difference", ("beta", "label_smoothing")),
    "hinge": Loss("difference", ("beta",)),
    "ipo": Loss("difference", ("beta", "ipo_average")),
    "exo_pair": Loss("difference", ("beta", "label_smoothing")),
    "discopop": Loss("difference", ("beta", "discopop_tau")),
    "dpop": Loss("ratios", ("beta", "dpop_lambda")),
    "nca_pair": Loss("ratios", ("beta",)),
    "sppo_hard": Loss("ratios", ("beta",)),
    "apo_zero": Loss("ratios", ("beta",)),
    "apo_down": Loss("ratios", ("beta",)),
    "kto_pair": Loss("ratios", ("beta",)),
    "bco_pair": Loss("ratios", ("beta",)),
    "aot": Loss("ratios", ("beta", "label_smoothing")),
    "aot_unpaired": Loss("ratios", ("beta", "label_smoothing")),
    "simpo": Loss("policy", ("beta", "simpo_gamma", "label_smoothing")),
    "cpo": Loss("policy", ("beta", "label_smoothing")),
    "orpo": Loss("policy", ()),
    "sft": Loss("policy", ()),
    "sft_norm": Loss("policy", ()),
}
# Over single answers that a label calls desirable or not, each by itself; never mixed with others.
UNPAIRED_LOSSES: dict[str, Loss] = {"kto": Loss("ratios", ("beta", "desirable_weight", "undesirable_weight"))}
# Other names: PaddleNLP's, the paper's, and those of earlier versions of TRL.
LOSS_ALIASES = {"dpo": "sigmoid", "or": "orpo", "slic": "hinge", "aot_pair": "aot_unpaired"}
# Their papers add the negative log-likelihood of the chosen answer.
WITH_SFT = ("orpo", "cpo")
