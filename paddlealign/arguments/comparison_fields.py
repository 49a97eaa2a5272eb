"""The keys of evaluate.py compare, beside the model's."""

from dataclasses import dataclass
from typing import Optional

from paddlealign.arguments.declare import key, required, same
from paddlealign.arguments.generation_fields import GenerationArguments


@dataclass(frozen=True)
class ComparisonArguments:
    """Prompts in, the answers of two models side by side out (evaluate.py compare)."""

    _argument_group_name = "comparison"

    baseline_model_name_or_path: str = required(
        "Folder of the model to compare with, such as the one before fine-tuning; it is read with its own tokenizer.", "DIR"
    )
    data_file: str = required("File of prompts: rows {src}, {prompt} or {messages}.", "FILE")
    output_file: str = key(
        "File that the rows with way, baseline and finetuned are written to, one JSON object a line.", "comparison.jsonl", metavar="FILE"
    )
    ways: str = key(
        "Ways of decoding, with commas between them (or a JSON list): greedy_search, sampling, beam_search, group_beam, "
        "contrastive_search. The keys below say how; a way may have values of its own behind it, as in sampling top_k=50 temperature=0.7.",
        "greedy_search, sampling",
        metavar="WAYS",
    )
    show_rows: int = key("Prompts whose answers are shown on the screen.", 5, metavar="ROWS")
    check: bool = key("Read the rows and both models, report them, and stop without generating.", False)
    batch_size: int = same(GenerationArguments, "batch_size")
    src_length: int = same(GenerationArguments, "src_length")
    max_length: int = same(GenerationArguments, "max_length")
    min_length: int = same(GenerationArguments, "min_length")
    stop_strings: Optional[str] = key(
        "Texts that end an answer, which is cut before them: a JSON list, or one text that does not begin with [. A special token in it "
        "ends the answer too.",
        None,
        metavar="TEXTS",
    )
    num_return_sequences: int = key("Answers per row of the ways that find several: so many draws, or the best beams.", 1, metavar="N")
    top_k: int = same(GenerationArguments, "top_k")
    top_p: float = same(GenerationArguments, "top_p")
    temperature: float = same(GenerationArguments, "temperature")
    repetition_penalty: float = same(GenerationArguments, "repetition_penalty")
    no_repeat_ngram_size: int = same(GenerationArguments, "no_repeat_ngram_size")
    num_beams: int = key("beam_search, group_beam: texts followed at once in each row, 2 or more.", 1, metavar="N")
    num_beam_groups: int = key("group_beam: groups of beams that keep away from each other; num_beams is a multiple.", 1, metavar="N")
    diversity_rate: float = key(
        "group_beam: what a token's log-probability loses for each beam of an earlier group with it.", 0.0, metavar="NUMBER"
    )
    length_penalty: float = same(GenerationArguments, "length_penalty")
    early_stopping: bool = same(GenerationArguments, "early_stopping")
    penalty_alpha: float = same(GenerationArguments, "penalty_alpha")
    seed: int = same(GenerationArguments, "seed")
    chat_template: str = same(GenerationArguments, "chat_template")
    device: str = same(GenerationArguments, "device")
    dtype: str = same(GenerationArguments, "dtype")
