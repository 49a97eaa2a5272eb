"""What each command was told: its filled dataclasses, where each value comes from, and what is to be said about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from paddlealign.arguments.comparison_fields import ComparisonArguments
from paddlealign.arguments.fields import (
    DataArguments,
    GenerationArguments,
    ModelArguments,
    ParallelArguments,
    TargetArguments,
    TrainingArguments,
)
from paddlealign.arguments.judge_fields import JudgeArguments
from paddlealign.arguments.lora_fields import AdapterArguments, LoraArguments
from paddlealign.arguments.objective_fields import ObjectiveArguments, SftObjectiveArguments
from paddlealign.arguments.reward_fields import RewardObjectiveArguments
from paddlealign.arguments.row_fields import AnswerRowArguments, PromptRowArguments, RowArguments, ScoredRowArguments
from paddlealign.arguments.sample_fields import SampleArguments
from paddlealign.arguments.scoring_fields import PerplexityArguments, ScoringArguments
from paddlealign.arguments.screen_fields import ScreenArguments

Command = Literal[
    "sft",
    "reward",
    "dpo",
    "predict",
    "evaluate_rewards",
    "evaluate_perplexity",
    "evaluate_judge",
    "evaluate_compare",
    "export",
    "plan",
]


@dataclass(frozen=True)
class Told:
    """What became of a key of another tool's configuration (``arguments.dialects``).

    theirs, ours: the keys; ours is empty where theirs has nothing to do here. value: ours, or theirs where it is ignored. why: how it is
    read, or why it is ignored.
    """

    theirs: str
    ours: str
    value: str
    why: str


@dataclass(frozen=True)
class SftArguments:
    """All that a run of sft_main.py was told.

    sources: key -> "default", "file", "command line", or "derived" (it follows from other keys). notes: lines to show the user once.
    file: the argument file, or None. told: where the file is another tool's, what became of its keys.
    """

    model: ModelArguments
    adapter: LoraArguments
    data: DataArguments
    rows: RowArguments
    training: TrainingArguments
    parallel: ParallelArguments
    objective: SftObjectiveArguments
    samples: SampleArguments
    screen: ScreenArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["sft"] = "sft"
    told: tuple[Told, ...] = ()


@dataclass(frozen=True)
class RewardArguments:
    """All that a run of reward_main.py was told; see SftArguments."""

    model: ModelArguments
    adapter: LoraArguments
    data: DataArguments
    rows: RowArguments
    training: TrainingArguments
    parallel: ParallelArguments
    objective: RewardObjectiveArguments
    screen: ScreenArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["reward"] = "reward"
    told: tuple[Told, ...] = ()


@dataclass(frozen=True)
class DpoArguments:
    """All that a run of dpo_main.py was told; see SftArguments."""

    model: ModelArguments
    adapter: LoraArguments
    data: DataArguments
    rows: RowArguments
    training: TrainingArguments
    parallel: ParallelArguments
    objective: ObjectiveArguments
    samples: SampleArguments
    screen: ScreenArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["dpo"] = "dpo"
    told: tuple[Told, ...] = ()


@dataclass(frozen=True)
class PredictArguments:
    """All that a run of predict.py was told; see SftArguments."""

    model: ModelArguments
    adapter: AdapterArguments
    rows: PromptRowArguments
    generation: GenerationArguments
    parallel: ParallelArguments
    screen: ScreenArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["predict"] = "predict"


@dataclass(frozen=True)
class EvaluateRewardsArguments:
    """All that evaluate.py rewards was told; see SftArguments."""

    model: ModelArguments
    adapter: AdapterArguments
    rows: ScoredRowArguments
    scoring: ScoringArguments
    screen: ScreenArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["evaluate_rewards"] = "evaluate_rewards"


@dataclass(frozen=True)
class EvaluatePerplexityArguments:
    """All that evaluate.py perplexity was told; see SftArguments."""

    model: ModelArguments
    adapter: AdapterArguments
    rows: ScoredRowArguments
    scoring: PerplexityArguments
    objective: SftObjectiveArguments
    screen: ScreenArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["evaluate_perplexity"] = "evaluate_perplexity"


@dataclass(frozen=True)
class EvaluateJudgeArguments:
    """All that evaluate.py judge was told; see SftArguments."""

    rows: AnswerRowArguments
    scoring: JudgeArguments
    screen: ScreenArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["evaluate_judge"] = "evaluate_judge"


@dataclass(frozen=True)
class EvaluateCompareArguments:
    """All that evaluate.py compare was told; see SftArguments."""

    model: ModelArguments
    adapter: AdapterArguments
    rows: PromptRowArguments
    comparison: ComparisonArguments
    screen: ScreenArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["evaluate_compare"] = "evaluate_compare"


@dataclass(frozen=True)
class ExportArguments:
    """All that paddlealign.export was told; see SftArguments."""

    model: ModelArguments
    adapter: AdapterArguments
    target: TargetArguments
    screen: ScreenArguments
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["export"] = "export"


TrainArguments = SftArguments | RewardArguments | DpoArguments
EvaluateArguments = EvaluateRewardsArguments | EvaluatePerplexityArguments | EvaluateJudgeArguments | EvaluateCompareArguments
Arguments = TrainArguments | PredictArguments | EvaluateArguments | ExportArguments
