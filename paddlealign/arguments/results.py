"""What each command was told: its filled dataclasses, where each value comes from, and what is to be said about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from paddlealign.arguments.fields import (
    DataArguments,
    GenerationArguments,
    ModelArguments,
    ParallelArguments,
    TargetArguments,
    TrainingArguments,
)
from paddlealign.arguments.lora_fields import AdapterArguments, LoraArguments
from paddlealign.arguments.objective_fields import ObjectiveArguments, SftObjectiveArguments
from paddlealign.arguments.reward_fields import RewardObjectiveArguments, ScoringArguments

Command = Literal["sft", "reward", "dpo", "predict", "evaluate_rewards", "export", "plan"]


@dataclass(frozen=True)
class SftArguments:
    """All that a run of sft_main.py was told.

    sources: key -> "default", "file", "command line", or "derived" (it follows from other keys). notes: lines to show the user once.
    file: the argument file, or None.
    """

    model: ModelArguments
    adapter: LoraArguments
    data: DataArguments
    training: TrainingArguments
    parallel: ParallelArguments
    objective: SftObjectiveArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["sft"] = "sft"


@dataclass(frozen=True)
class RewardArguments:
    """All that a run of reward_main.py was told; see SftArguments."""

    model: ModelArguments
    adapter: LoraArguments
    data: DataArguments
    training: TrainingArguments
    parallel: ParallelArguments
    objective: RewardObjectiveArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["reward"] = "reward"


@dataclass(frozen=True)
class DpoArguments:
    """All that a run of dpo_main.py was told; see SftArguments."""

    model: ModelArguments
    adapter: LoraArguments
    data: DataArguments
    training: TrainingArguments
    parallel: ParallelArguments
    objective: ObjectiveArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["dpo"] = "dpo"


@dataclass(frozen=True)
class PredictArguments:
    """All that a run of predict.py was told; see SftArguments."""

    model: ModelArguments
    adapter: AdapterArguments
    generation: GenerationArguments
    parallel: ParallelArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["predict"] = "predict"


@dataclass(frozen=True)
class EvaluateRewardsArguments:
    """All that evaluate.py rewards was told; see SftArguments."""

    model: ModelArguments
    scoring: ScoringArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["evaluate_rewards"] = "evaluate_rewards"


@dataclass(frozen=True)
class ExportArguments:
    """All that paddlealign.export was told; see SftArguments."""

    model: ModelArguments
    adapter: AdapterArguments
    target: TargetArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["export"] = "export"


TrainArguments = SftArguments | RewardArguments | DpoArguments
Arguments = TrainArguments | PredictArguments | EvaluateRewardsArguments | ExportArguments
