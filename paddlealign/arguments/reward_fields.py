"""The keys of training a reward model."""

from dataclasses import dataclass

from paddlealign.arguments.declare import key


@dataclass(frozen=True)
class RewardObjectiveArguments:
    """The Bradley-Terry loss (reward)."""

    _argument_group_name = "objective"

    center_rewards_coefficient: float = key(
        "Weight of the square of the sum of a pair's two rewards, which keeps rewards about zero; 0.01 is usual, 0 leaves it out.",
        0.0,
        metavar="NUMBER",
    )
