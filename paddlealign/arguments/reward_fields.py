"""The keys of reward models: of training one, and of scoring rows with one."""

from dataclasses import dataclass
from typing import Optional

from paddlealign.arguments.declare import key, required


@dataclass(frozen=True)
class RewardObjectiveArguments:
    """The Bradley-Terry loss (reward)."""

    _argument_group_name = "objective"

    center_rewards_coefficient: float = key(
        "Weight of the square of the sum of a pair's two rewards, which keeps rewards about zero; 0.01 is usual, 0 leaves it out.",
        0.0,
        metavar="NUMBER",
    )


@dataclass(frozen=True)
class ScoringArguments:
    """Rows in, rewards out (evaluate.py rewards)."""

    _argument_group_name = "scoring"

    data_file: str = required(
        "File of rows: pairs {prompt, chosen, rejected}, or prompts with an answer in response, output (as predict.py writes it), tgt or "
        "the last message.",
        "FILE",
    )
    output_file: str = key("File that the rows with their scores are written to, one JSON object a line.", "scores.jsonl", metavar="FILE")
    check: bool = key("Read the rows and the model, report them, and stop without scoring.", False)
    batch_size: int = key("Rows scored together; it changes speed and memory only.", 8, metavar="ROWS")
    src_length: Optional[int] = key("Longest prompt, in tokens; unset: only max_length bounds it.", None, metavar="TOKENS")
    max_length: int = key("Longest prompt plus ONE response, in tokens.", 2048, metavar="TOKENS")
    truncation: str = key(
        "What happens to a longer row: left out (counted), cut at the prompt's start, cut at the response's end, or nothing is scored.",
        "drop",
        choices=("drop", "truncate_prompt", "truncate_response", "error"),
    )
    chat_template: str = key(
        "auto: the tokenizer's own template where it has one, plain text otherwise; none: plain text; or the path of a .jinja file. As in "
        "training.",
        "auto",
        metavar="auto|none|FILE",
    )
    device: str = key("Where to compute; auto takes the GPU where Paddle sees one.", "auto", choices=("auto", "cpu", "gpu"))
    dtype: str = key(
        "Number format of the weights; auto: the checkpoint's own on a GPU, float32 on a CPU.",
        "auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    )


def scoring_problems(scoring: ScoringArguments) -> list[str]:
    """What is wrong with the keys together: there must be room for a response."""
    prompt, both = scoring.src_length, scoring.max_length
    if prompt is None or prompt < both:
        return []
    return [f"src_length {prompt} (the prompt) must be below max_length {both} (the prompt and one response)."]
