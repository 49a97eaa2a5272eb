"""The keys of answers during training; see fields.py. Two of the names are those of the DPO paper's code."""

from dataclasses import dataclass, fields
from typing import Optional

from paddlealign.arguments.declare import key
from paddlealign.arguments.judge_fields import split_judge


@dataclass(frozen=True)
class SampleArguments:
    """Answers during training (sft, dpo)."""

    _argument_group_name = "samples"

    sample_during_eval: bool = key(
        "Let the policy answer some prompts before training, at each evaluation and at the end, into output_dir/samples/step-N.jsonl; in "
        "DPO beside the reference's answers. It changes nothing in training.",
        False,
    )
    n_eval_model_samples: int = key("How many prompts are answered, the same each time.", 16, metavar="N")
    sample_data_file: Optional[str] = key(
        "File of rows {src}, {prompt} or {messages} whose prompts are answered; unset: those of the first dev rows.", None, metavar="FILE"
    )
    sample_max_length: int = key("Most NEW tokens of an answer.", 128, metavar="TOKENS")
    sample_temperature: float = key(
        "0 takes the likeliest token; above 0 tokens are drawn, with logits divided by it and the same random numbers each time.",
        0.0,
        metavar="NUMBER",
    )
    sample_reward_model: Optional[str] = key(
        "Folder of a reward model that scores the answers, by its own tokenizer and template. Process 0 reads it for each evaluation and "
        "lets it go.",
        None,
        metavar="DIR",
    )
    sample_judge: Optional[str] = key(
        "Python function that judges each answer against the reference's (dpo), as evaluate.py judge calls it: FUNCTION(prompt, answer, "
        "reference_answer). samples/judge is the share that it prefers, ties as half.",
        None,
        metavar="FILE.py:FUNCTION",
    )


def sample_problems(samples: SampleArguments, evaluates: bool) -> list[str]:
    """What is wrong with the keys together. evaluates: whether the run reads dev rows."""
    if samples.sample_judge:
        try:
            split_judge(samples.sample_judge)
        except ValueError as error:
            return [f"sample_judge: {error}"]
    if samples.sample_during_eval and not samples.sample_data_file and not evaluates:
        return [
            "sample_during_eval has no prompts: do_eval is false and evaluation_strategy no. Set evaluation_strategy to steps or epoch, or "
            "sample_data_file to a file of prompts."
        ]
    return []


def unread_sample_keys(samples: SampleArguments) -> list[tuple[bool, str, str]]:
    """Keys that another one makes void: (whether it does, the key, why)."""
    keys = [item.name for item in fields(samples) if item.name != "sample_during_eval"]
    return [(not samples.sample_during_eval, name, "sample_during_eval is false") for name in keys]
