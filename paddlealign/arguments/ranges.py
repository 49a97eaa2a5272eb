"""Which numbers a key may have, alone."""

from typing import Any, NamedTuple

from paddlealign.arguments.degrees import PARALLEL_KEYS
from paddlealign.arguments.values import show


class Range(NamedTuple):
    """Numbers that a key may have: low to high, the ends included or not."""

    low: float
    high: float = float("inf")
    low_included: bool = True
    high_included: bool = True

    def holds(self, value: float) -> bool:
        """Whether the value is allowed."""
        above = value >= self.low if self.low_included else value > self.low
        return above and (value <= self.high if self.high_included else value < self.high)

    def text(self) -> str:
        """For a message: "above 0", "0 to below 0.5"."""
        low = _plain(self.low) if self.low_included else f"above {_plain(self.low)}"
        if self.high == float("inf"):
            return f"{low} or more" if self.low_included else low
        return f"{low} to {'' if self.high_included else 'below '}{_plain(self.high)}"


def _plain(number: float) -> str:
    """Every digit of a whole number."""
    return str(int(number)) if number == int(number) else f"{number:g}"


_POSITIVE = Range(0, low_included=False)
RANGES: dict[str, Range] = {
    "src_length": Range(1),
    "max_length": Range(1),
    "dataset_num_proc": Range(1),
    "num_train_epochs": _POSITIVE,
    "max_steps": Range(-1),
    "per_device_train_batch_size": Range(1),
    "per_device_eval_batch_size": Range(1),
    "tokens_per_batch": Range(1),
    "gradient_accumulation_steps": Range(1),
    "learning_rate": _POSITIVE,
    "min_learning_rate": Range(0),
    "warmup_steps": Range(0),
    "warmup_ratio": Range(0, 1),
    "weight_decay": Range(0),
    "adam_beta1": Range(0, 1, high_included=False),
    "adam_beta2": Range(0, 1, high_included=False),
    "adam_epsilon": _POSITIVE,
    "max_grad_norm": Range(0),
    "seed": Range(0, 2**32 - 1),
    "replay_step": Range(1),
    "logging_steps": Range(1),
    "eval_steps": Range(1),
    "save_steps": Range(1),
    "save_total_limit": Range(1),
    "preempt_save_seconds": _POSITIVE,
    "early_stopping_patience": Range(1),
    "early_stopping_threshold": Range(0),
    "beta": _POSITIVE,
    "label_smoothing": Range(0, 0.5, high_included=False),
    "center_rewards_coefficient": Range(0),
    "desirable_weight": _POSITIVE,
    "undesirable_weight": _POSITIVE,
    "simpo_gamma": Range(0),
    "dpop_lambda": Range(0),
    "discopop_tau": _POSITIVE,
    "f_alpha_divergence_coef": Range(0, 1),
    "ld_alpha": Range(0, 1),
    "pref_loss_ratio": Range(0),
    "sft_loss_ratio": Range(0),
    "ref_model_mixup_alpha": Range(0, 1, low_included=False),
    "ref_model_sync_steps": Range(1),
    "lora_rank": Range(1),
    "lora_alpha": Range(-1),
    "lora_dropout": Range(0, 1, high_included=False),
    "lora_plus_scale": _POSITIVE,
    "tie_margin": Range(0),
    "show_rows": Range(0),
    "n_eval_model_samples": Range(1),
    "sample_max_length": Range(1),
    "sample_temperature": Range(0),
    "batch_size": Range(1),
    "top_k": Range(0),
    "top_p": Range(0, 1, low_included=False),
    "temperature": _POSITIVE,
    "repetition_penalty": _POSITIVE,
    "min_length": Range(0),
    "no_repeat_ngram_size": Range(0),
    "num_return_sequences": Range(1),
    "num_beams": Range(1),
    "num_beam_groups": Range(1),
    "diversity_rate": Range(0, 100),
    "length_penalty": Range(-10, 10),
    "penalty_alpha": Range(0, 1, low_included=False),
    "devices": Range(1),
    "device_memory_gib": _POSITIVE,
    "reserve_gib": Range(0),
    "devices_per_node": Range(1),
    "device_tflops": _POSITIVE,
    "achieved_share": Range(0, 1, low_included=False),
    "intra_node_gbs": _POSITIVE,
    "inter_node_gbs": _POSITIVE,
    "rows_per_step": Range(1),
    "tokens_per_row": Range(1),
    "scored_share": Range(0, 1, low_included=False),
    **{key: Range(-1) for key, kind in PARALLEL_KEYS.items() if kind is int},
}
_HINTS = {
    "save_total_limit": " or null for all",
    "temperature": "; for the likeliest token set decode_strategy to greedy_search",
    "max_steps": ", where -1 and 0 leave it to num_train_epochs",
    **{key: ", where -1 and 0 ask for nothing" for key, kind in PARALLEL_KEYS.items() if kind is int},
}


def range_problem(key: str, value: Any) -> str | None:
    """What is wrong with a number, as a text that goes on from "key: ", or None."""
    allowed = RANGES.get(key)
    if allowed is None or value is None or allowed.holds(value):
        return None
    return f"{show(value)} is not allowed; allowed: {allowed.text()}{_HINTS.get(key, '')}."
