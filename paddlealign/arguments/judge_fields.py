"""The keys of evaluate.py judge, and what judges: a reward model, the log-ratio of two models, or a function of the user's."""

import os
from dataclasses import dataclass
from typing import Optional

from paddlealign.arguments.declare import key, required, same
from paddlealign.arguments.scoring_fields import ScoringArguments
from paddlealign.arguments.values import joined, show


@dataclass(frozen=True)
class JudgeArguments:
    """Two files of answers in, the better answer of each prompt out (evaluate.py judge)."""

    _argument_group_name = "scoring"

    answers_a: str = required(
        "File of A's answers: rows {src, output} as predict.py writes them; response or tgt may stand for output.", "FILE"
    )
    answers_b: str = required("File of B's answers to the same prompts, in any order.", "FILE")
    output_file: str = key("File that the judged rows are written to, one JSON object a line.", "judged.jsonl", metavar="FILE")
    reward_model_name_or_path: Optional[str] = key("Judge by the scores of this reward model.", None, metavar="DIR")
    policy_model_name_or_path: Optional[str] = key(
        "Judge by DPO's implicit reward, beta (log pi(y|x) - log ref(y|x)): the folder of pi.", None, metavar="DIR"
    )
    ref_model_name_or_path: Optional[str] = key("The folder of ref, beside policy_model_name_or_path.", None, metavar="DIR")
    beta: float = key("Weight of the log-probability ratio, per nat.", 0.1, metavar="NUMBER")
    judge: Optional[str] = key(
        "Judge by a Python function of yours, FUNCTION(prompt, answer_a, answer_b): it returns a number, above 0 where A is better, 0 for "
        "a tie, below 0 where B is; or the two scores. The file is run as it stands.",
        None,
        metavar="FILE.py:FUNCTION",
    )
    tie_margin: float = key("A row is a tie where the scores differ by so much or less.", 0.0, metavar="NUMBER")
    check: bool = key("Read the answers and the judge, report them, and stop without judging.", False)
    tokenizer_name_or_path: Optional[str] = key("Folder of the tokenizer, where it is not the judging model's.", None, metavar="DIR")
    allow_pickle: bool = key(
        "Read weights from pytorch_model.bin where there is no safetensors file; only tensors are taken from it.", False
    )
    batch_size: int = key("Prompts scored together; it changes speed and memory only.", 8, metavar="PROMPTS")
    src_length: Optional[int] = same(ScoringArguments, "src_length")
    max_length: int = same(ScoringArguments, "max_length")
    truncation: str = same(ScoringArguments, "truncation")
    chat_template: str = same(ScoringArguments, "chat_template")
    device: str = same(ScoringArguments, "device")
    dtype: str = same(ScoringArguments, "dtype")


_WAYS = {
    "reward_model_name_or_path": ("reward_model_name_or_path",),
    "policy_model_name_or_path": ("policy_model_name_or_path", "ref_model_name_or_path"),
    "judge": ("judge",),
}
_MODELS_ONLY = (
    "tokenizer_name_or_path", "allow_pickle", "batch_size", "src_length", "max_length", "truncation", "chat_template", "device", "dtype",
)  # fmt: skip


def split_judge(text: str) -> tuple[str, str]:
    """The file and the function of ``judge``. Raises ValueError whose text goes on from "judge: "."""
    file, colon, function = os.path.expanduser(text).rpartition(":")
    if not colon or not file.endswith(".py") or not function.isidentifier():
        raise ValueError(f"{show(text)} is not allowed; allowed: FILE.py:FUNCTION, such as judges/mine.py:better.")
    return file, function


def judge_problems(judging: JudgeArguments) -> list[str]:
    """Exactly one judge is needed, and answers of two."""
    problems = []
    given = [name for name, keys in _WAYS.items() if any(getattr(judging, key) for key in keys)]
    if not given:
        problems.append(
            "nothing judges: set reward_model_name_or_path, or policy_model_name_or_path with ref_model_name_or_path, or judge."
        )
    if len(given) > 1:
        problems.append(f"{joined(given, 'and')} are set; one of them judges. Keep one.")
    missing = [key for key in _WAYS["policy_model_name_or_path"] if not getattr(judging, key)]
    if len(missing) == 1:
        other = next(key for key in _WAYS["policy_model_name_or_path"] if key not in missing)
        problems.append(f"{other} without {missing[0]}: the reward is the ratio of the two models. Set both.")
    if judging.judge:
        try:
            split_judge(judging.judge)
        except ValueError as error:
            problems.append(f"judge: {error}")
    if judging.answers_a == judging.answers_b:
        problems.append(f"answers_a and answers_b are the same file, {judging.answers_a}. Give two.")
    return problems


def unread_judge_keys(judging: JudgeArguments) -> list[tuple[str, str]]:
    """The keys that this judge does not look at, each with the reason."""
    unread = [] if judging.policy_model_name_or_path else [("beta", "policy_model_name_or_path is unset")]
    return unread + [(key, "judge is a function") for key in _MODELS_ONLY if judging.judge]
