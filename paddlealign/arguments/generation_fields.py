"""The keys of predict.py. Names and defaults are PaddleNLP's."""

from dataclasses import dataclass
from typing import Optional

from paddlealign.arguments.declare import key
from paddlealign.arguments.template_names import TEMPLATE_NAMES


@dataclass(frozen=True)
class GenerationArguments:
    """Rows in, completions out (predict)."""

    _argument_group_name = "generation"

    data_file: Optional[str] = key("File of rows {src, tgt?}, {prompt} or {messages}; required without interactive.", None, metavar="FILE")
    output_file: str = key("File that the rows with their output are written to, one JSON object a line.", "output.json", metavar="FILE")
    interactive: bool = key("Chat in the terminal instead of reading data_file.", False)
    check: bool = key("Read the rows and the model, report them, and stop without generating.", False)
    batch_size: int = key(
        "Rows generated together, each with its num_beams, top_k (contrastive_search) or num_return_sequences texts; it changes speed and "
        "memory, not the text.",
        1,
        metavar="ROWS",
    )
    src_length: int = key("Longest prompt, in tokens; a longer one is cut at its start.", 1024, metavar="TOKENS")
    max_length: int = key("Most NEW tokens per row, without the prompt.", 1024, metavar="TOKENS")
    min_length: int = key("Least NEW tokens per row before the model may end it; a stop string ends it all the same.", 0, metavar="TOKENS")
    stop_strings: Optional[str] = key(
        "Texts that end an answer, which is cut before them: a JSON list, or one text that does not begin with [. A special token in it "
        "ends the answer too. Refused with interactive.",
        None,
        metavar="TEXTS",
    )
    decode_strategy: str = key(
        "Draw a token, take the likeliest one, search for the likeliest text (diverse texts where num_beam_groups is above 1), or take "
        "likely tokens that do not repeat what stands there.",
        "sampling",
        choices=("sampling", "greedy_search", "beam_search", "contrastive_search"),
    )
    num_return_sequences: int = key(
        "Answers per row: so many draws, or the best beams. Above 1 the row's output is a list of texts, under beams the best first, and "
        "interactive is refused.",
        1,
        metavar="N",
    )
    top_k: int = key(
        "sampling: draw among the k likeliest tokens, 0 for all. contrastive_search: choose among them, 2 or more.", 0, metavar="TOKENS"
    )
    top_p: float = key("Draw among the likeliest tokens that together hold this probability, above 0 to 1.", 0.7, metavar="SHARE")
    temperature: float = key("Logits are divided by this before drawing; above 0.", 0.95, metavar="NUMBER")
    repetition_penalty: float = key("Factor that lowers tokens already seen; 1 is off.", 1.0, metavar="FACTOR")
    no_repeat_ngram_size: int = key("No run of so many tokens comes twice, the prompt's included; 0 is off.", 0, metavar="TOKENS")
    num_beams: int = key("beam_search: texts followed at once in each row, 2 or more.", 1, metavar="N")
    num_beam_groups: int = key("beam_search: groups of beams that keep away from each other; num_beams is a multiple.", 1, metavar="N")
    diversity_rate: float = key(
        "beam_search with groups: what a token's log-probability loses for each beam of an earlier group with it.", 0.0, metavar="NUMBER"
    )
    length_penalty: float = key(
        "beam_search: an answer's sum of log-probabilities is divided by its length to this power; larger favours longer answers.",
        1.0,
        metavar="NUMBER",
    )
    early_stopping: bool = key("beam_search: end a row when num_beams answers are found, not when no better one is to be expected.", False)
    penalty_alpha: float = key(
        "contrastive_search: weight of unlikeness to the text so far against probability, above 0 to 1.", 0.6, metavar="SHARE"
    )
    seed: int = key("Seed of the draws.", 42, metavar="N")
    chat_template: str = key(
        "auto: the tokenizer's own template where it has one, plain text otherwise; none: plain text; a name: "
        f"{', '.join(TEMPLATE_NAMES)}; or the path of a .jinja file.",
        "auto",
        metavar="auto|none|NAME|FILE",
    )
    device: str = key("Where to compute; auto takes the GPU where Paddle sees one.", "auto", choices=("auto", "cpu", "gpu"))
    dtype: str = key(
        "Number format of the weights; auto: the checkpoint's own on a GPU, float32 on a CPU.",
        "auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
