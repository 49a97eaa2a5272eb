"""The keys of scoring rows: with a reward model (rewards), or by a language model's log-probs (perplexity)."""

from dataclasses import dataclass
from typing import Optional

from paddlealign.arguments.declare import key, required, same
from paddlealign.arguments.generation_fields import GenerationArguments
from paddlealign.arguments.template_names import TEMPLATE_NAMES


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
        "auto: the tokenizer's own template where it has one, plain text otherwise; none: plain text; a name: "
        f"{', '.join(TEMPLATE_NAMES)}; or the path of a .jinja file. As in training.",
        "auto",
        metavar="auto|none|NAME|FILE",
    )
    device: str = same(GenerationArguments, "device")
    dtype: str = same(GenerationArguments, "dtype")


@dataclass(frozen=True)
class PerplexityArguments:
    """Rows in, their negative log-likelihoods out (evaluate.py perplexity)."""

    _argument_group_name = "scoring"

    data_file: str = required(
        "File of rows that were held out: {src, tgt}, {messages}, or pairs, of which the chosen answer counts.", "FILE"
    )
    output_file: str = key(
        "File that the rows with their nll and tokens are written to, one JSON object a line.", "perplexity.jsonl", metavar="FILE"
    )
    check: bool = same(ScoringArguments, "check")
    batch_size: int = same(ScoringArguments, "batch_size")
    src_length: Optional[int] = same(ScoringArguments, "src_length")
    max_length: int = same(ScoringArguments, "max_length")
    truncation: str = same(ScoringArguments, "truncation")
    chat_template: str = same(ScoringArguments, "chat_template")
    device: str = same(ScoringArguments, "device")
    dtype: str = same(ScoringArguments, "dtype")


def length_problems(src_length: int | None, max_length: int) -> list[str]:
    """What is wrong with the two lengths together: there must be room for a response."""
    if src_length is None or src_length < max_length:
        return []
    return [f"src_length {src_length} (the prompt) must be below max_length {max_length} (the prompt and one response)."]
