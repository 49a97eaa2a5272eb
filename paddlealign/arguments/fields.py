"""The keys that a user may set, in the groups that ``--help`` shows. Names, meanings and defaults are PaddleNLP's.

Where a default differs from PaddleNLP's, docs/arguments.md says so. ``Optional[...]`` is written out because PdArgumentParser does not
read ``int | None``.
"""

from dataclasses import dataclass
from typing import Optional

from paddlealign.arguments.comparison_fields import ComparisonArguments
from paddlealign.arguments.declare import key as _key
from paddlealign.arguments.declare import required as _required
from paddlealign.arguments.export_fields import TargetArguments
from paddlealign.arguments.generation_fields import GenerationArguments
from paddlealign.arguments.judge_fields import JudgeArguments
from paddlealign.arguments.lora_fields import AdapterArguments, LoraArguments
from paddlealign.arguments.objective_fields import ObjectiveArguments, SftObjectiveArguments
from paddlealign.arguments.plan_fields import PlanFields
from paddlealign.arguments.reward_fields import RewardObjectiveArguments
from paddlealign.arguments.row_fields import AnswerRowArguments, PromptRowArguments, RowArguments, ScoredRowArguments
from paddlealign.arguments.sample_fields import SampleArguments
from paddlealign.arguments.scoring_fields import PerplexityArguments, ScoringArguments
from paddlealign.arguments.screen_fields import ScreenArguments
from paddlealign.arguments.template_names import TEMPLATE_NAMES

# A ~ at the start of these values is the user's home folder. chat_template and resume_from_checkpoint may be words, which have none.
PATH_KEYS = frozenset({
    "model_name_or_path", "tokenizer_name_or_path", "dataset_name_or_path", "train_dataset_path", "dev_dataset_path", "chat_template",
    "output_dir", "resume_from_checkpoint", "ref_model_name_or_path", "reference_cache_dir", "dataset_cache_dir", "data_file",
    "output_file", "json", "lora_path", "ref_lora_path",
    "answers_a", "answers_b", "reward_model_name_or_path", "policy_model_name_or_path", "baseline_model_name_or_path",
    "sample_data_file", "sample_reward_model",
})  # fmt: skip


@dataclass(frozen=True)
class ModelArguments:
    """Which model is started from (all commands)."""

    _argument_group_name = "model"

    model_name_or_path: str = _required(
        "Folder of a HuggingFace checkpoint (config.json, *.safetensors, tokenizer files), or a hub's id (org/name).", "DIR"
    )
    tokenizer_name_or_path: Optional[str] = _key("Folder of the tokenizer, where it is not the model's.", None, metavar="DIR")
    allow_pickle: bool = _key(
        "Read weights from pytorch_model.bin where there is no safetensors file. Such a file is a pickle, which can ask for any code to be "
        "run; here it gets tensors and nothing else.",
        False,
    )


@dataclass(frozen=True)
class DataArguments:
    """Which rows are read, and how they become tokens (sft, reward, dpo)."""

    _argument_group_name = "data"

    dataset_name_or_path: Optional[list[str]] = _key(
        "Where the rows are, one path or several (a list, or commas): a folder with train.json and dev.json (or train/*.json and "
        "dev/*.json), a data set's folder as it was downloaded from a hub (see split and subset), a hub's id (org/name), or a file or "
        "pattern of training rows.",
        None,
        metavar="PATH",
    )
    train_dataset_path: Optional[list[str]] = _key(
        "Files, patterns or folders of training rows, one or several (a list, or commas); wins over dataset_name_or_path.",
        None,
        metavar="FILE",
    )
    dev_dataset_path: Optional[list[str]] = _key(
        "Files, patterns or folders of evaluation rows, one or several (a list, or commas); wins over dataset_name_or_path.",
        None,
        metavar="FILE",
    )
    src_length: int = _key("Longest prompt, in tokens.", 1024, metavar="TOKENS")
    max_length: int = _key(
        "Longest prompt plus ONE response, in tokens; also the length of a packed row under zero_padding.", 2048, metavar="TOKENS"
    )
    truncation: str = _key(
        "What happens to a row longer than src_length or max_length: left out (counted), cut at the prompt's start, cut at the "
        "response's end (which then has no scored end token), or the run stops.",
        "drop",
        choices=("drop", "truncate_prompt", "truncate_response", "error"),
    )
    chat_template: str = _key(
        "auto: the tokenizer's own template where it has one, plain concatenation otherwise; none: plain concatenation; a name: "
        f"{', '.join(TEMPLATE_NAMES)}; or the path of a .jinja file. Names and files are saved with the model.",
        "auto",
        metavar="auto|none|NAME|FILE",
    )
    zero_padding: bool = _key(
        "Pack examples into rows of max_length tokens before they are grouped: batch sizes then count packed rows.", False
    )
    greedy_zero_padding: bool = _key("Like zero_padding, with the best-fitting examples put together: fewer rows, another order.", False)
    dataset_num_proc: Optional[int] = _key(
        "Processes that turn the rows into tokens; unset, as many as there are cores. It changes speed alone.", None, metavar="N"
    )
    dataset_cache_dir: Optional[str] = _key(
        "Folder of the rows in tokens, which later runs take from there and which runs may share; unset: output_dir/encoded, where those "
        "of other settings are removed (under check: nowhere).",
        None,
        metavar="DIR",
    )


@dataclass(frozen=True)
class TrainingArguments:
    """The training run (sft, reward, dpo)."""

    _argument_group_name = "training"

    output_dir: str = _required("Folder for checkpoints, the run log and the final model.", "DIR")
    overwrite_output_dir: bool = _key(
        "Start anew in an output_dir that already holds a run: its run.json, metrics.jsonl, curves.png, samples and checkpoints are "
        "removed, its model files are replaced at the end, and nothing else is touched.",
        False,
    )
    resize_vocab: bool = _key(
        "Where the tokenizer has more tokens than the model (and the reference), grow its embedding and head; each new row is the mean of "
        "the old ones.",
        False,
    )
    do_train: bool = _key("Train.", False)
    do_eval: bool = _key("Evaluate on the dev rows; implied by an evaluation_strategy other than no.", False)
    check: bool = _key("Do everything up to the first step, report it, and stop without training.", False)
    num_train_epochs: float = _key("Passes over the training rows (a fraction is allowed).", 1.0, metavar="EPOCHS")
    max_steps: int = _key("Optimizer steps; above 0 it wins over num_train_epochs.", -1, metavar="STEPS")
    per_device_train_batch_size: int = _key(
        "Dataset rows (SFT rows, pairs) of one micro-batch on one device; packed rows under zero_padding.", 8, metavar="ROWS"
    )
    tokens_per_batch: Optional[int] = _key(
        "In place of per_device_train_batch_size: tokens of one micro-batch on one device, a prompt once and all its responses. It takes "
        "as many dataset rows as best fit puts into them; a longer row is a micro-batch of its own.",
        None,
        metavar="TOKENS",
    )
    group_by_length: bool = _key(
        "Let each step have rows of like length. An epoch still has every row once, and its steps are shuffled.", False
    )
    per_device_eval_batch_size: int = _key(
        "Dataset rows of one evaluation batch on one device; it changes speed and memory only.", 8, metavar="ROWS"
    )
    gradient_accumulation_steps: int = _key("Micro-batches that make one optimizer step.", 1, metavar="N")
    learning_rate: float = _key("Peak learning rate of AdamW, per step.", 5e-5, metavar="RATE")
    lr_scheduler_type: str = _key(
        "Learning rate after the warm-up: down to min_learning_rate in a line or in a half cosine, or level.",
        "linear",
        choices=("linear", "cosine", "constant", "constant_with_warmup"),
    )
    min_learning_rate: float = _key("Learning rate at the end of linear and cosine.", 0.0, metavar="RATE")
    warmup_steps: int = _key("Steps over which the learning rate rises from 0; above 0 it wins over warmup_ratio.", 0, metavar="STEPS")
    warmup_ratio: float = _key("The same as a share of all steps, 0 to 1.", 0.0, metavar="SHARE")
    weight_decay: float = _key("AdamW's decoupled decay, per step and unit of learning rate; not on norms and biases.", 0.0, metavar="RATE")
    adam_beta1: float = _key("AdamW's decay of the first moment, per step.", 0.9, metavar="SHARE")
    adam_beta2: float = _key("AdamW's decay of the second moment, per step.", 0.999, metavar="SHARE")
    adam_epsilon: float = _key("AdamW's term under the fraction.", 1e-8, metavar="NUMBER")
    max_grad_norm: float = _key("Largest global L2 norm of a step's gradient; 0 switches clipping off.", 1.0, metavar="NORM")
    seed: int = _key("Seed of the row order and of every random draw.", 42, metavar="N")
    device: str = _key("Where to compute; auto takes the GPU where Paddle sees one.", "auto", choices=("auto", "cpu", "gpu"))
    bf16: bool = _key("Train in bfloat16 (GPU).", False)
    fp16: bool = _key("Train in float16 with loss scaling (GPU).", False)
    fp16_opt_level: str = _key(
        "Under bf16 or fp16: O1 keeps the weights in float32, O2 keeps them in 16 bits beside float32 master weights.",
        "O1",
        choices=("O1", "O2"),
    )
    sharding: str = _key(
        "What the processes that read different rows keep a part of each: stage1 the optimizer's state, stage2 also the gradients, stage3 "
        "also the layers' weights, which are brought together while a layer computes (and recomputed in backward).",
        "",
        metavar="stage1|stage2|stage3",
    )
    sharding_parallel_degree: int = _key(
        "How many of them share the parts; unset, all. Beyond that number the parts are held again.", 1, metavar="N"
    )
    sequence_parallel: bool = _key(
        "Let the processes of tensor_parallel_degree each hold a part of the positions between the layers' matmuls: less memory.", False
    )
    recompute: bool = _key("Recompute each layer's activations in backward: less memory, about a third more time, same numbers.", False)
    plain_path: bool = _key(
        "To check a result: compute every row alone, whole and by Paddle's own differentiated operators, with one response in a row and "
        "the reference anew at each step. The same training but for rounding; slow.",
        False,
    )
    on_bad_numbers: str = _key(
        "At a step whose loss or gradient is NaN or infinite: stop with exit code 3 and a checkpoint of before the step, or skip the "
        "step's update and count it; after 10 skipped in a row the run stops, too.",
        "stop",
        choices=("stop", "skip"),
    )
    replay_step: Optional[int] = _key(
        "Compute this step of the run in output_dir again, from the nearest checkpoint before it, and show each layer's weights, "
        "activations and gradients and each row's loss; the run itself is not touched.",
        None,
        metavar="STEP",
    )
    logging_steps: int = _key("Steps between two lines of the run log.", 500, metavar="STEPS")
    report_to: str = _key(
        "Viewers that get the curves too, one or several (a list, or commas): visualdl and tensorboard write event files into folders of "
        "output_dir that bear their names; wandb is Weights & Biases (to be installed; WANDB_MODE, WANDB_PROJECT, ... are read).",
        "none",
        metavar="none|visualdl|tensorboard|wandb",
    )
    run_name: Optional[str] = _key("The run's name in wandb; unset, output_dir.", None, metavar="NAME")
    disable_tqdm: bool = _key("Show plain lines instead of a progress bar.", False)
    evaluation_strategy: str = _key("When to evaluate during training.", "no", choices=("no", "steps", "epoch"))
    eval_steps: Optional[int] = _key(
        "Steps between two evaluations (evaluation_strategy steps); logging_steps where unset.", None, metavar="STEPS"
    )
    save_strategy: str = _key("When to write a checkpoint during training.", "steps", choices=("no", "steps", "epoch"))
    save_steps: int = _key("Steps between two checkpoints (save_strategy steps).", 500, metavar="STEPS")
    save_total_limit: Optional[int] = _key(
        "Checkpoints kept; the oldest go first, and under load_best_model_at_end the best one stays. Unset keeps all.", None, metavar="N"
    )
    save_on_stop: bool = _key(
        "On Ctrl-C or SIGTERM finish the step, write a checkpoint, and end with exit code 130 or 75 (start the same command again).", False
    )
    preempt_save_seconds: Optional[float] = _key(
        "Seconds that a machine gives after SIGTERM: a checkpoint that is not whole by then is left, and the run ends with exit code 75, "
        "the last one intact. Sets save_on_stop.",
        None,
        metavar="SECONDS",
    )
    load_best_model_at_end: bool = _key("Make the best checkpoint by metric_for_best_model the final model.", False)
    metric_for_best_model: str = _key(
        "Evaluation metric that picks the best checkpoint and stops early: loss, accuracy (SFT: scored tokens predicted right; "
        "reward, DPO: pairs with a positive margin), margin (reward, DPO).",
        "loss",
        choices=("loss", "accuracy", "margin"),
    )
    greater_is_better: Optional[bool] = _key(
        "Direction of metric_for_best_model; unset: false for loss, true otherwise.", None, metavar="true|false"
    )
    early_stopping_patience: Optional[int] = _key("Stop after so many evaluations in a row without a better metric.", None, metavar="N")
    early_stopping_threshold: float = _key("How much better a metric must be to count, in the metric's unit.", 0.0, metavar="NUMBER")
    resume_from_checkpoint: Optional[str] = _key(
        "Folder of a checkpoint to go on from; true for the newest whole one in output_dir; auto for that, or the start where there is no "
        "run yet. Never resumed unasked.",
        None,
        metavar="DIR|true|auto",
    )


@dataclass(frozen=True)
class ParallelArguments:
    """What several processes do, read under paddle.distributed.launch (sft, reward, dpo, predict)."""

    _argument_group_name = "parallel"

    tensor_parallel_degree: int = _key(
        "Processes that share each layer and the vocabulary; read under paddle.distributed.launch.", 1, metavar="N"
    )
    pipeline_parallel_degree: int = _key("Processes that hold different layers, one after the other; read likewise.", 1, metavar="N")
    data_parallel_degree: int = _key(
        "Processes that read different rows; unset, as many as the other two leave of those started.", 1, metavar="N"
    )


_TRAINING = {
    "model": ModelArguments,
    "adapter": LoraArguments,
    "data": DataArguments,
    "rows": RowArguments,
    "training": TrainingArguments,
    "parallel": ParallelArguments,
    "screen": ScreenArguments,
}
SECTIONS: dict[str, dict[str, type]] = {
    "sft": {**_TRAINING, "objective": SftObjectiveArguments, "samples": SampleArguments},
    "reward": {**_TRAINING, "objective": RewardObjectiveArguments},
    "dpo": {**_TRAINING, "objective": ObjectiveArguments, "samples": SampleArguments},
    "predict": {
        "model": ModelArguments,
        "adapter": AdapterArguments,
        "rows": PromptRowArguments,
        "generation": GenerationArguments,
        "parallel": ParallelArguments,
        "screen": ScreenArguments,
    },
    "evaluate_rewards": {
        "model": ModelArguments,
        "adapter": AdapterArguments,
        "rows": ScoredRowArguments,
        "scoring": ScoringArguments,
        "screen": ScreenArguments,
    },
    "evaluate_perplexity": {
        "model": ModelArguments,
        "adapter": AdapterArguments,
        "rows": ScoredRowArguments,
        "scoring": PerplexityArguments,
        "objective": SftObjectiveArguments,
        "screen": ScreenArguments,
    },
    "evaluate_judge": {"rows": AnswerRowArguments, "scoring": JudgeArguments, "screen": ScreenArguments},
    "evaluate_compare": {
        "model": ModelArguments,
        "adapter": AdapterArguments,
        "rows": PromptRowArguments,
        "comparison": ComparisonArguments,
        "screen": ScreenArguments,
    },
    "export": {"model": ModelArguments, "adapter": AdapterArguments, "target": TargetArguments, "screen": ScreenArguments},
    "plan": {"plan": PlanFields},
}
MAIN_SCRIPTS = {"sft": "sft_main.py", "reward": "reward_main.py", "dpo": "dpo_main.py", "predict": "predict.py"}
MAIN_SCRIPTS |= {f"evaluate_{task}": f"evaluate.py {task}" for task in ("rewards", "perplexity", "judge", "compare")}
MAIN_SCRIPTS |= {command: f"python -m paddlealign.{command}" for command in ("export", "plan")}
