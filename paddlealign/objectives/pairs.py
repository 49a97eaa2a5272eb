"""What the losses over pairs are made of: log-probs of the two answers, and the numbers in the formulas."""

from dataclasses import dataclass, replace

from paddle import Tensor

from paddlealign.objectives.divergence import divergence_scores


@dataclass(frozen=True)
class Coefficients:
    """The numbers in the formulas, under the names of the keys that set them (docs/arguments.md), without units but for nats."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    ipo_average: str = "token"
    simpo_gamma: float = 0.5
    dpop_lambda: float = 50.0
    discopop_tau: float = 0.05
    f_divergence_type: str = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5


@dataclass(frozen=True)
class Pairs:
    """Some pairs; column 0 is of the chosen answers y_w, column 1 of the rejected ones y_l. All are float32.

    logps: [pairs, 2], ``log pi(y|x)``; under LD-DPO some tokens count less. whole: [pairs, 2], the same with all tokens counted whole.
    ratios: [pairs, 2], ``log pi(y|x) - log ref(y|x)``; the log-probs themselves without a reference.
    scores: [pairs, 2], ``f'(pi / ref)`` of the f-divergence that holds the policy to the reference; the ratios under the usual reverse KL.
    lengths: [pairs, 2], scored tokens, 1 at least. context: [pairs, 2], what the loss must know of the whole step, see ``whole_step``.
    """

    logps: Tensor
    whole: Tensor
    ratios: Tensor
    scores: Tensor
    lengths: Tensor
    context: Tensor | None = None

    def within(self, context: Tensor) -> "Pairs":
        """The same pairs with what one loss must know of the whole step."""
        return replace(self, context=context)

    @property
    def chosen(self) -> Tensor:
        """The chosen answers' log-ratios, [pairs]."""
        return self.ratios[:, 0]

    @property
    def rejected(self) -> Tensor:
        """The rejected answers' log-ratios, [pairs]."""
        return self.ratios[:, 1]

    @property
    def difference(self) -> Tensor:
        """Score of the chosen answer less that of the rejected one, [pairs]."""
        return self.scores[:, 0] - self.scores[:, 1]

    @property
    def difference_per_token(self) -> Tensor:
        """The same with each score divided by its answer's length, [pairs]."""
        scores = self.scores / self.lengths
        return scores[:, 0] - scores[:, 1]


def make_pairs(policy_logps: Tensor, whole_logps: Tensor, reference_logps: Tensor | None, lengths: Tensor, numbers: Coefficients) -> Pairs:
    """Pairs from responses that are chosen and rejected in turn: float32 [2 pairs] each; reference_logps None without a reference."""
    logps = policy_logps.reshape([-1, 2])
    ratios = logps if reference_logps is None else logps - reference_logps.reshape([-1, 2])
    scores = divergence_scores(ratios, numbers.f_divergence_type, numbers.f_alpha_divergence_coef)
    return Pairs(logps, whole_logps.reshape([-1, 2]), ratios, scores, lengths.reshape([-1, 2]).clip(min=1.0))
