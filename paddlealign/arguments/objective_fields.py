"""The keys of the losses, in the groups that ``--help`` shows; see fields.py."""

from dataclasses import dataclass
from typing import Optional

from paddlealign.arguments.declare import key as _key
from paddlealign.arguments.losses import LOSSES

_ALONE = ", ".join(name for name, loss in LOSSES.items() if loss.compares == "policy")


@dataclass(frozen=True)
class SftObjectiveArguments:
    """What the SFT loss scores (sft)."""

    _argument_group_name = "objective"

    score_turns: str = _key(
        "Which assistant turns of a conversation are scored: all, the last one, or only those that the row marks (weight 1, train true, "
        "train_detail). A turn that the row marks with weight 0 or train false is never scored.",
        "all",
        choices=("all", "last", "marked"),
    )


@dataclass(frozen=True)
class ObjectiveArguments:
    """The preference loss and its reference model (dpo)."""

    _argument_group_name = "objective"

    loss_type: str = _key(
        "The loss over pairs, or several with commas (docs/objectives.md): " + ", ".join(LOSSES) + "; or kto, over labelled rows.",
        "sigmoid",
        metavar="NAMES",
    )
    loss_weights: Optional[str] = _key(
        "Weights of the losses in loss_type, one each (a list, or commas); unset: 1 each.", None, metavar="NUMBERS"
    )
    beta: float = _key(
        "Weight of the log-probability ratio, per nat; larger keeps nearer to the reference. ipo calls it tau, sppo_hard 1 / eta.",
        0.1,
        metavar="NUMBER",
    )
    label_smoothing: float = _key(
        "Assumed share of pairs whose order is wrong, 0 up to below 0.5 (sigmoid: conservative DPO; robust; exo_pair needs it above 0).",
        0.0,
        metavar="SHARE",
    )
    ipo_average: str = _key(
        "What ipo calls an answer's log-ratio: its mean per token, as TRL and PaddleNLP do, or its sum, as the paper prints.",
        "token",
        choices=("token", "sum"),
    )
    simpo_gamma: float = _key("simpo: reward margin to be reached, in units of reward.", 0.5, metavar="NUMBER")
    dpop_lambda: float = _key("dpop: weight of the chosen answer's lost log-probability.", 50.0, metavar="NUMBER")
    discopop_tau: float = _key("discopop: width of the change from the logistic to the exponential loss.", 0.05, metavar="NUMBER")
    desirable_weight: float = _key("kto: weight of the rows that are labelled desirable.", 1.0, metavar="NUMBER")
    undesirable_weight: float = _key("kto: weight of the rows that are labelled undesirable.", 1.0, metavar="NUMBER")
    f_divergence_type: str = _key(
        "What holds the policy to the reference: DPO's reverse KL, or another divergence of the f-DPO paper (losses over the difference of "
        "the two answers only).",
        "reverse_kl",
        choices=("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    )
    f_alpha_divergence_coef: float = _key(
        "alpha of alpha_divergence: 1 is the reverse KL, 0 the forward KL, as TRL has it since 1.0; the paper's is 1 - alpha.",
        0.5,
        metavar="NUMBER",
    )
    ld_alpha: float = _key(
        "Weight of the tokens by which a pair's longer answer is longer (LD-DPO), 0 to 1; 1 counts every token alike.", 1.0, metavar="SHARE"
    )
    use_weighting: bool = _key(
        "Weigh each pair by how likely the policy is to write its answers (WPO): nearer to training on its own samples.", False
    )
    reference_free: bool = _key(
        "No reference model: the log-probabilities themselves take the place of the ratios. Always so for " + _ALONE + ".", False
    )
    pref_loss_ratio: float = _key("Weight of the preference loss.", 1.0, metavar="NUMBER")
    sft_loss_ratio: float = _key(
        "Weight of the chosen answers' cross-entropy, a mean over the step's tokens, beside it; unset: 1 for orpo and cpo, as "
        "their papers have it.",
        0.0,
        metavar="NUMBER",
    )
    ref_model_name_or_path: Optional[str] = _key(
        "Folder of the reference model; unset: the model that training starts from.", None, metavar="DIR"
    )
    ref_lora_path: Optional[str] = _key(
        "Folder of a LoRA adapter that belongs to the reference, beside ref_model_name_or_path or beside the model that training starts "
        "from; unset: where ref_model_name_or_path is unset too, the adapter that training starts from (lora_path).",
        None,
        metavar="DIR",
    )
    reference_dtype: str = _key(
        "In what the reference's weights are held and multiplied; auto: as the policy's. A CPU has float32 only.",
        "auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    reference_mode: str = _key(
        "cached: the reference's log-probabilities are computed once and kept on disk; frozen: a frozen copy stays in memory.",
        "cached",
        choices=("cached", "frozen"),
    )
    reference_cache_dir: Optional[str] = _key(
        "Folder of the cached log-probabilities (reference_mode cached), which runs may share; unset: output_dir/reference.",
        None,
        metavar="DIR",
    )
    sync_ref_model: bool = _key("Let the reference follow the policy while it trains (TR-DPO; reference_mode frozen).", False)
    ref_model_mixup_alpha: float = _key(
        "Share of the policy in the reference after a sync, above 0 to 1; 1 makes it a copy of the policy.", 0.6, metavar="SHARE"
    )
    ref_model_sync_steps: int = _key("Optimizer steps from one sync of the reference to the next.", 512, metavar="STEPS")
