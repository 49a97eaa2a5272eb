"""The flags of DeepSpeed-Chat and of the DPO code in its style: three stages, each a main.py with ``--key value``."""

from collections.abc import Sequence
from typing import Any

from paddlealign.arguments.dialects.data_keys import OUR_ROWS, refuse_named, take_wish
from paddlealign.arguments.dialects.reading import Entry, Ignored, Reading, Renamed, Rule, Setting, Unless, plain_value
from paddlealign.errors import UserError

NAME = "DeepSpeed-Chat"
_STAGES = {"sft": "step1", "reward": "step2_reward", "dpo": "step3_dpo"}
# Flags without a value.
_SWITCHES = frozenset({
    "gradient_checkpointing", "actor_gradient_checkpointing", "critic_gradient_checkpointing", "offload", "offload_reference_model",
    "only_optimize_lora", "deepspeed", "enable_hybrid_engine", "enable_tensorboard", "print_loss", "compute_fp32_loss", "add_eot_token",
    "disable_dropout", "disable_actor_dropout", "disable_critic_dropout", "enable_ema", "no_fused_kernels", "use_ziya", "actor_offload",
    "unpin_actor_parameters", "release_inference_cache", "no_bf16_to_fp32_loss", "do_train", "overwrite_output_dir",
})  # fmt: skip
_LISTS = frozenset({"data_path", "local_data_files", "data_split"})
_LEARNING_RATE = {"sft": 1e-3, "reward": 5e-5, "dpo": 9.65e-6}
_GENERATION = "of generation in PPO; DPO generates nothing in training"
_CRITIC = "DPO trains no critic"
_OFFLOAD = "weights and optimizer state stay on the devices"

RULES: dict[str, Rule] = {
    "model_name_or_path": Renamed("model_name_or_path"),
    "actor_model_name_or_path": Renamed("model_name_or_path", "the policy, and the reference"),
    "per_device_train_batch_size": Renamed("per_device_train_batch_size", "on each device, as there"),
    "per_device_eval_batch_size": Renamed("per_device_eval_batch_size"),
    "gradient_accumulation_steps": Renamed("gradient_accumulation_steps"),
    "num_train_epochs": Renamed("num_train_epochs"),
    "weight_decay": Renamed("weight_decay"),
    "actor_weight_decay": Renamed("weight_decay"),
    "label_smoothing": Renamed("label_smoothing"),
    "gradient_checkpointing": Renamed("recompute"),
    "actor_gradient_checkpointing": Renamed("recompute"),
    "log_interval": Renamed("logging_steps"),
    "output_dir": Renamed("output_dir"),
    "offload": Unless((False,), _OFFLOAD, "Leave it out; --zero_stage 3 with more devices holds least on each."),
    "offload_reference_model": Ignored("the reference's log-probs are computed once and kept on disk; no reference stays in memory"),
    "unsup_coef": Ignored("read with unsupervised_dataset_name only"),
    "unsupervised_dataset_name": Unless((), "no pretraining rows are mixed in", "Leave it out."),
    "unsupervised_dataset_config_name": Ignored("read with unsupervised_dataset_name only"),
    "generation_batch_numbers": Ignored(_GENERATION),
    "critic_model_name_or_path": Unless(
        (), "no reward model scores texts during DPO", "Leave it out, and run predict.py, then evaluate.py rewards, on checkpoints."
    ),
    "dropout": Unless((0, 0.0), "there is no dropout in these models"),
    "eval_iters": Unless((), "evaluation reads all dev rows", "Set --dev_dataset_path to a smaller file."),
    "lora_module_name": Ignored("an adapter stands beside every linear layer here (lora_target_modules)"),
    "actor_lora_module_name": Ignored("an adapter stands beside every linear layer here (lora_target_modules)"),
    "add_eot_token": Unless((False,), "the tokenizer's own end token ends an answer"),
    "enable_ema": Unless((False,), "no moving average of the weights is kept"),
    "compute_fp32_loss": Ignored("losses are computed in float32 always"),
    "disable_dropout": Ignored("there is no dropout in these models"),
    "disable_actor_dropout": Ignored("there is no dropout in these models"),
    "no_bf16_to_fp32_loss": Unless((False,), "losses are computed in float32 always"),
    "num_padding_at_beginning": Ignored("of OPT's tokenizer; a reward is read at an answer's last token"),
    "data_output_path": Ignored("nothing is shuffled on disk"),
    "preprocessing_num_workers": Ignored("changes no number"),
    "print_loss": Ignored("every logged step shows its loss"),
    "no_fused_kernels": Ignored("changes speed, no number"),
    "use_ziya": Unless((False,), "the rotary layout is that of config.json"),
    "tensorboard_path": Ignored("all logs stand in output_dir"),
    "deepspeed": Ignored("paddle.distributed.launch starts the processes"),
    "deepspeed_config": Unless((), "a DeepSpeed file is not read", "Leave it out, and set --zero_stage."),
    "local_rank": Ignored("paddle.distributed.launch starts the processes"),
    "load_lora_dir": Renamed("lora_path"),
}
RULES |= {key: Ignored(_CRITIC) for key in (
    "critic_weight_decay", "critic_learning_rate", "critic_zero_stage", "critic_gradient_checkpointing", "critic_lora_dim",
    "critic_lora_module_name", "critic_lora_learning_rate", "disable_critic_dropout",
)}  # fmt: skip
RULES |= {key: Ignored(_GENERATION) for key in (
    "enable_hybrid_engine", "unpin_actor_parameters", "release_inference_cache", "inference_tp_size", "tp_gather_partition_size",
)}  # fmt: skip

KEYS = frozenset(RULES) | _SWITCHES | _LISTS | {
    "learning_rate", "actor_learning_rate", "lora_learning_rate", "actor_lora_learning_rate", "lr_scheduler_type", "num_warmup_steps",
    "seed", "beta", "max_prompt_seq_len", "max_answer_seq_len", "max_seq_len", "lora_dim", "actor_lora_dim", "lora_alpha", "zero_stage",
    "actor_zero_stage", "dtype", "eval_interval",
}  # fmt: skip


def flags_as_entries(words: Sequence[str]) -> dict[str, Entry]:
    """``--key value ...`` words as entries; a switch is true, --data_path and its like are lists. Raises UserError."""
    entries: dict[str, Entry] = {}
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"command line: unexpected {word}. Every flag is written --key value.")
        key, equals, text = word[2:].partition("=")
        values = [text] if equals else []
        while not equals and key not in _SWITCHES and words and not words[0].startswith("--"):
            values.append(words.pop(0))
        if key in _SWITCHES and not values:
            value: Any = True
        elif key in _LISTS:
            value = values
        elif len(values) != 1:
            raise UserError(f"command line: --{key} needs {'one value' if values else 'a value after it'}.")
        else:
            value = plain_value(values[0])
        entries[key] = Entry(value, "command line")
    return entries


def stage_of(entries: dict[str, Entry], script: str) -> str | None:
    """The command that flags or the script's path speak of: sft, reward or dpo; None where both are silent."""
    for command, folder in _STAGES.items():
        if folder in script:
            return command
    if "beta" in entries or any(key.startswith("actor_") for key in entries) or "step2_dpo" in script:
        return "dpo"
    shares = _shares(entries["data_split"].value) if "data_split" in entries else []
    whole = [command for at, command in enumerate(("sft", "reward", "dpo")) if shares and all(share[at] == sum(share) for share in shares)]
    return whole[0] if len(whole) == 1 else None


def read_deepspeed_chat(entries: dict[str, Entry], setting: Setting) -> Reading:
    """Our keys for a stage of DeepSpeed-Chat; ``setting.command`` says which, or else the flags do."""
    reading = Reading(NAME, entries, setting)
    command = setting.command or stage_of(entries, "")
    if command is None:
        reading.problems.append("command line: is this SFT or a reward model? Add --command sft or --command reward.")
        return reading
    reading.command = command
    reading.take("the stage", "do_train", True, f"{command}_main.py runs it")
    if not any(key in entries for key in ("model_name_or_path", "actor_model_name_or_path")):
        reading.refuse("model_name_or_path", "is not set.", unless=("model_name_or_path",))
    _take_rows(reading)
    _take_optimizer(reading)
    _take_lora(reading)
    _take_layout(reading)
    _take_times(reading)
    if "critic_model_name_or_path" in entries and reading.has("sample_reward_model"):
        _take_critic(reading)
    reading.apply(RULES)
    return reading.finish(f"; it is none of {NAME}'s, and none of {command}_main.py's.")


def _shares(value: Any) -> list[list[float]]:
    """The three shares of each data set: ["5,0,5"] -> [[5, 0, 5]]; empty where they are none."""
    try:
        shares = [[float(part) for part in str(text).split(",")] for text in (value if isinstance(value, list) else [value])]
    except ValueError:
        return []
    return shares if all(len(share) == 3 and sum(share) > 0 and min(share) >= 0 for share in shares) else []


def _take_rows(reading: Reading) -> None:
    folders, names = reading.get("local_data_files"), reading.get("data_path")
    if folders:
        for ours, file in (("train_dataset_path", "train.jsonl"), ("dev_dataset_path", "test.jsonl")):
            reading.take(
                "local_data_files", ours, [f"{folder.rstrip('/')}/{file}" for folder in folders], f"{file} of each folder, as there"
            )
        if names is not None:
            reading.ignore("data_path", "names the class that reads the rows there; here they are told from the rows")
    elif names and all(name.startswith(("/", ".", "~")) for name in names):
        reading.take("data_path", "train_dataset_path" if len(names) > 1 else "dataset_name_or_path", names if len(names) > 1 else names[0])
    else:
        refuse_named(reading, "data_path")
    split = reading.get("data_split")
    if split is not None:
        shares, at = _shares(split), ("sft", "reward", "dpo").index(reading.command)
        if not shares:
            reading.refuse("data_split", "three shares are needed for each data set, as in 2,4,4.")
        elif all(share[at] == sum(share) for share in shares):
            reading.ignore("data_split", "all rows are this stage's")
        elif all(share[at] == 0 for share in shares):
            reading.refuse("data_split", f"leaves no rows to this stage ({reading.command}).", unless=OUR_ROWS)
        elif any(share != shares[0] for share in shares):
            reading.refuse("data_split", "differs between the data sets; one split for all is read.", unless=OUR_ROWS)
        else:
            take_wish(reading, "data_split", "share", split[0])
    reading.take("the stage", "chat_template", "none", "texts are joined as they are, as there")
    prompt, answer, whole = (reading.number(key, None) for key in ("max_prompt_seq_len", "max_answer_seq_len", "max_seq_len"))
    if prompt and answer:
        reading.take(
            "max_answer_seq_len", "max_length", prompt + answer, "max_prompt_seq_len + max_answer_seq_len: the prompt and ONE response"
        )
        reading.take("max_prompt_seq_len", "src_length", prompt)
        if whole:
            reading.ignore("max_seq_len", "max_prompt_seq_len and max_answer_seq_len say it")
    else:
        total = whole or 512
        reading.take("max_seq_len", "max_length", total, "the prompt and ONE response, as there")
        reading.take("max_seq_len", "src_length", prompt or total - 1, "the prompt alone has no bound" if not prompt else "")
        if answer:
            reading.refuse("max_answer_seq_len", "needs max_prompt_seq_len beside it.")


def _take_optimizer(reading: Reading) -> None:
    rates: tuple[str, ...] = ("learning_rate", "actor_learning_rate")
    if reading.number("lora_dim", reading.number("actor_lora_dim", 0)):
        rates = ("lora_learning_rate", "actor_lora_learning_rate", *rates)  # the adapter has its own, and nothing else is trained here
    rate = next((key for key in rates if key in reading.entries), "learning_rate")
    for other in rates:
        if other in reading.entries and other != rate:
            reading.ignore(other, f"{rate} is that of the adapter, and nothing else is trained")
    reading.take(rate, "learning_rate", reading.get(rate, _LEARNING_RATE[reading.command]))
    if reading.command == "dpo":
        style = any(key.startswith("actor_") for key in reading.entries)
        reading.take("beta", "beta", reading.get("beta", 0.3 if style else 0.1))
    elif "beta" in reading.entries:
        reading.ignore("beta", f"{reading.command}_main.py has no beta")
    kind, warm = reading.get("lr_scheduler_type", "cosine"), reading.number("num_warmup_steps", 0)
    reading.take("lr_scheduler_type", "lr_scheduler_type", kind)
    if kind == "constant" and warm:
        reading.ignore("num_warmup_steps", "constant has no warm-up; constant_with_warmup has")
    elif "num_warmup_steps" in reading.entries:
        reading.take("num_warmup_steps", "warmup_steps", warm)
    reading.take("adam_beta2", "adam_beta2", 0.95)
    reading.take("seed", "seed", reading.get("seed", 1234), "another order of the rows than there, all the same")


def _take_lora(reading: Reading) -> None:
    key = next((key for key in ("lora_dim", "actor_lora_dim") if key in reading.entries), "lora_dim")
    rank = reading.number(key, 0)
    if not rank:
        for name in (key, "only_optimize_lora", "lora_learning_rate", "actor_lora_learning_rate"):
            if name in reading.entries:
                reading.ignore(name, "without a lora_dim above 0 there is no adapter")
        return
    if reading.get("only_optimize_lora") is not True:
        reading.refuse(
            key, "trains all weights beside the adapter there; here they stay as they are. Add --only_optimize_lora, or leave it out."
        )
        return
    reading.take(key, "lora", True)
    reading.take(key, "lora_rank", rank)
    reading.ignore("only_optimize_lora", "all else stays as it is")
    reading.take("lora_alpha", "lora_alpha", reading.get("lora_alpha", 1), "the adapter's output is divided by its rank")


def _take_layout(reading: Reading) -> None:
    for key in ("zero_stage", "actor_zero_stage"):
        if key not in reading.entries:
            continue
        stage = reading.number(key, 0)
        if stage in (1, 2, 3) and reading.started > 1:
            reading.take(key, "sharding", f"stage{stage}")
        elif stage in (0, 1, 2, 3):
            reading.ignore(
                key, "one process has nothing to share; --processes counts those that will be started" if stage else "nothing is shared"
            )
        else:
            reading.refuse(key, "is not known. Allowed: 0, 1, 2, 3.")
    kind = reading.get("dtype")
    if kind is None:
        reading.ignore("dtype", "float32 here unless it is written; add --bf16 true on a GPU", "fp16")
    elif kind in ("fp16", "bf16"):
        reading.take("dtype", str(kind), True)
    else:
        reading.refuse("dtype", "is not known. Allowed: fp16, bf16.")


def _take_critic(reading: Reading) -> None:
    key, given = "critic_model_name_or_path", reading.setting.given
    if "evaluation_strategy" in reading.keys or any(name in given for name in ("evaluation_strategy", "do_eval", "sample_data_file")):
        reading.take(key, "sample_during_eval", True, "it scores the policy's answers at each evaluation")
        reading.take(key, "sample_reward_model", reading.get(key))
    else:
        reading.ignore(key, "it would score answers to the dev rows' prompts, and there are none (dev_dataset_path, sample_data_file)")


def _take_times(reading: Reading) -> None:
    """There a run is evaluated after each epoch and saved at its end."""
    every = reading.number("eval_interval", 0)
    has_dev = "dev_dataset_path" in reading.keys or "dev_dataset_path" in reading.setting.given or "dataset_name_or_path" in reading.keys
    has_dev = has_dev or "dataset_name_or_path" in reading.setting.given
    if every > 0:
        reading.take("eval_interval", "evaluation_strategy", "steps")
        reading.take("eval_interval", "eval_steps", every)
    elif has_dev:
        reading.take("eval_interval", "evaluation_strategy", "epoch", "after each epoch")
    if "eval_interval" in reading.entries and every <= 0:
        reading.ignore("eval_interval", "0: after each epoch")
    reading.take("the stage", "save_strategy", "no", "the final model is always written")
    if "per_device_train_batch_size" not in reading.entries:
        reading.take("per_device_train_batch_size", "per_device_train_batch_size", 16)
    if "log_interval" not in reading.entries:
        reading.take("log_interval", "logging_steps", 1 if reading.command != "dpo" else 16)
    if reading.get("enable_tensorboard") is True:
        reading.take("enable_tensorboard", "report_to", "tensorboard", "event files of the same kind")
