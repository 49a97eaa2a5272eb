"""Trinity-RFT's YAML: offline DPO and SFT (``mode: train``), in the layout of its versions from 0.2 on."""

from paddlealign.arguments.dialects.batch import take_batch
from paddlealign.arguments.dialects.reading import Entry, Ignored, Reading, Renamed, Rule, Setting, Unless
from paddlealign.arguments.dialects.trinity_rows import FORMAT, ROWS, take_rows
from paddlealign.arguments.dialects.verl import ACTOR, apply_verl, take_layout, take_lora

NAME = "Trinity-RFT"
SECTIONS: dict[str, frozenset[str]] = {
    "algorithm": frozenset({"algorithm_type", "kl_loss_fn", "kl_loss_fn_args", "optimizer"}),
    "model": frozenset({"model_path", "max_model_len"}),
    "cluster": frozenset({"node_num", "gpu_per_node"}),
    "buffer": frozenset({"total_epochs", "train_batch_size", "trainer_input"}),
    "trainer": frozenset({"save_interval", "trainer_config", "trainer_config_path"}),
}
_NO_EXPLORER = "read by explorer and rollout, which training on given rows has not"
_ITS_OWN = "set by Trinity-RFT itself"
_SPEED = "changes speed and memory there, no number"

RULES: dict[str, Rule] = {
    "buffer.total_epochs": Renamed("num_train_epochs"),
    "trainer.grad_clip": Renamed("max_grad_norm"),
    "trainer.actor_grad_clip": Renamed("max_grad_norm"),
    "trainer.ulysses_sequence_parallel_size": Unless((1,), "sequences are not cut over processes here", "Set tensor_parallel_degree."),
    "trainer.trainer_type": Unless(("verl",), "is not known; the documents have verl"),
    "algorithm.optimizer.optimizer_type": Unless(("adam", "adamw"), "AdamW is the optimizer here, which adam means there, too"),
    "algorithm.policy_loss_fn": Unless(("dpo", "sft"), "the loss is that of algorithm_type"),
    "algorithm.policy_loss_fn_args.label_smoothing": Renamed("label_smoothing"),
    "algorithm.policy_loss_fn_args.use_token_level_loss": Unless((True,), "the SFT loss is a mean over all tokens of a step"),
    "algorithm.use_token_level_loss": Unless((True,), "the SFT loss is a mean over all tokens of a step"),
    "algorithm.entropy_loss_fn": Unless(("none",), "no entropy term is added to these losses"),
    "buffer.trainer_input.sft_warmup_steps": Unless((0,), "two methods in one run are not here", "Run sft_main.py first."),
    "buffer.trainer_input.auxiliary_buffers": Unless((), "one set of rows is read", "Leave it out, or write all rows into one file."),
    f"{ROWS}.name": Ignored("a name within their project"),
    f"{ROWS}.storage_type": Unless(("file",), "rows come from files here", "Write the rows to a file and set storage_type: file."),
    f"{ROWS}.enable_progress_bar": Ignored("progress is always shown (disable_tqdm)"),
    f"{FORMAT}.image_key": Unless((), "models of text only are trained here"),
    f"{FORMAT}.video_key": Unless((), "models of text only are trained here"),
    f"{FORMAT}.reply_prefix": Unless((), "no text is put in front of an answer here", "Put it into the rows."),
    "model.critic_model_path": Ignored("DPO and SFT have no critic"),
    "stages": Unless((), "one stage a run", "Write a file for each stage."),
}
IGNORED_SECTIONS = {
    "explorer": _NO_EXPLORER,
    "synchronizer": "brings weights from the trainer to the explorer; there is no explorer here",
    "buffer.explorer_input": _NO_EXPLORER,
    "buffer.trainer_input.sft_warmup_dataset": "read with sft_warmup_steps only",
    "data_processor": "works on rollouts there; rows are read as they are here",
    "service": "services of the explorer",
    "monitor": "the run log is output_dir/metrics.jsonl here, and report_to names viewers beside it",
    "log": "the run log is output_dir/metrics.jsonl here",
    "ray_namespace": "there is no Ray here; paddle.distributed.launch starts the processes",
    "cluster.ray_address": "there is no Ray here; paddle.distributed.launch starts the processes",
    "algorithm.optimizer.total_training_steps": _ITS_OWN,
    "algorithm.repeat_times": _NO_EXPLORER,
    "algorithm.sample_strategy": _NO_EXPLORER,
    "algorithm.sample_strategy_args": _NO_EXPLORER,
    "algorithm.advantage_fn": _NO_EXPLORER,
    "algorithm.advantage_fn_args": _NO_EXPLORER,
    "algorithm.kl_penalty_fn": _NO_EXPLORER,
    "algorithm.kl_penalty_fn_args": _NO_EXPLORER,
    "algorithm.entropy_loss_fn_args": "read with entropy_loss_fn only",
    "algorithm.kl_loss_fn_args": "of the estimator of the KL divergence, which DPO's loss does not have",
    "buffer.max_retry_times": "how rows are stored and fed there",
    "buffer.max_retry_interval": "how rows are stored and fed there",
    "buffer.batch_size": "the explorer's batch of tasks",
    "buffer.pad_token_id": _ITS_OWN,
    "buffer.tokenizer_path": _ITS_OWN,
    "buffer.cache_dir": _ITS_OWN,
    "checkpoint_job_dir": _ITS_OWN,
    "trainer.name": "a name within their project",
    "trainer.enable_preview": _NO_EXPLORER,
    "trainer.save_strategy": "how checkpoints are written at once there",
    "trainer.use_dynamic_bsz": _SPEED,
    "trainer.max_token_len_per_gpu": _SPEED,
    "trainer.ppo_max_token_len_per_gpu": _SPEED,
    "trainer.fix_actor_microbatch_loss_scale": "the loss of a step is exact under every split here",
}
IGNORED_SECTIONS |= {f"{ROWS}.{key}": "how rows are stored and fed there" for key in (
    "repeat_times", "mm_data_kwargs", "index", "capacity", "max_read_timeout", "use_priority_queue", "reuse_cooldown_time", "replay_buffer",
    "replay_buffer_kwargs", "max_retry_times", "max_retry_interval", "ray_namespace", "wrap_in_ray", "schema_type", "total_epochs",
    "total_steps", "is_eval", "batch_size", "tokenizer_path",
)}  # fmt: skip
IGNORED_SECTIONS |= {f"{ROWS}.{key}": _NO_EXPLORER for key in (
    "default_workflow_type", "default_eval_workflow_type", "default_reward_fn_type", "rollout_args", "workflow_args", "reward_fn_args",
    "task_selector", "format.workflow_key", "format.reward_fn_key",
)}  # fmt: skip
IGNORED_SECTIONS |= {f"model.{key}": _NO_EXPLORER for key in (
    "min_response_tokens", "temperature", "top_p", "top_k", "logprobs", "fully_sharded_loras", "max_cpu_loras", "max_response_tokens",
    "enable_prompt_truncation", "repetition_penalty",
)}  # fmt: skip


def read_trinity(entries: dict[str, Entry], setting: Setting) -> Reading:
    """Our keys for a Trinity-RFT configuration. entries: dotted keys; those of a trainer_config_path stand under trainer.trainer_config."""
    reading = Reading(NAME, entries, setting)
    _take_mode(reading)
    if reading.problems:
        return reading
    _take_cluster(reading)
    _take_model(reading)
    _take_output(reading)
    _take_optimizer(reading)
    _take_objective(reading)
    take_rows(reading)
    _take_steps(reading)
    reading.apply(RULES)
    apply_verl(reading)
    reading.ignore_sections(IGNORED_SECTIONS)
    return reading.finish(
        ". Is it indented as it should be, and from version 0.2 of Trinity-RFT or later? What has no meaning here may be left out."
    )


def _take_mode(reading: Reading) -> None:
    mode, kind = reading.get("mode", "both"), reading.get("algorithm.algorithm_type", "ppo")
    if mode != "train":
        reading.refuse("mode", f"is {mode}, which has an explorer that generates rows. Here rows are given: set mode: train.")
        return
    reading.ignore("mode", "training on given rows is what is done here")
    if kind not in ("dpo", "sft"):
        reading.refuse("algorithm.algorithm_type", f"is {kind}, which is not here. Allowed: dpo, sft.")
        return
    rewards = kind == "dpo" and reading.setting.command == "reward"
    reading.command = "reward" if rewards else str(kind)
    told = "its pairs train a reward model, as reward_main.py was started" if rewards else f"{kind}_main.py runs it"
    reading.ignore("algorithm.algorithm_type", told)
    reading.take("mode", "do_train", True)


def _take_cluster(reading: Reading) -> None:
    reading.machines, reading.devices = reading.number("cluster.node_num", 1), reading.number("cluster.gpu_per_node", None)
    for key in ("cluster.node_num", "cluster.gpu_per_node"):
        if key in reading.entries:
            reading.ignore(key, "said by the launch command")


def _take_model(reading: Reading) -> None:
    path = reading.get("model.model_path")
    if path is None:
        reading.refuse("model.model_path", "is not set. Set it to the folder of the model.", unless=("model_name_or_path",))
    else:
        reading.take("model.model_path", "model_name_or_path", path)
    whole, prompt = reading.number("model.max_model_len", None), reading.number("model.max_prompt_tokens", None)
    answer = reading.number("model.max_response_tokens", None)
    key, remark = "model.max_model_len", "prompt and ONE response"
    if whole is None and prompt and answer:
        whole, remark = prompt + answer, "max_prompt_tokens + max_response_tokens: the prompt and ONE response"
    elif whole is None:
        whole = reading.setting.positions(str(reading.setting.given.get("model_name_or_path", path or "")))
        remark = "the most tokens that the model and its tokenizer take, as there"
    if whole is None:
        reading.ignore(key, "their default is what the model takes, and its config.json is not to be read: --max_length sets it", "")
        return
    reading.take(key, "max_length", whole, remark)
    if answer is not None:
        reading.ignore("model.max_response_tokens", "bounds what is generated there; max_length and src_length bound rows")
    bound = f"{reading.where('model.max_prompt_tokens')}" if prompt else ""
    if prompt and prompt < whole:
        reading.take("model.max_prompt_tokens", "src_length", prompt)
    else:
        if prompt:
            reading.notes.append(f"{bound} {prompt} is no bound: max_length is {whole}.")
        reading.take("model.max_prompt_tokens", "src_length", max(1, whole - 1), "the prompt alone has no bound")


def _take_output(reading: Reading) -> None:
    parts = {"checkpoint_root_dir": ".", "project": "Trinity-RFT", "group": "", "name": "rft"}
    values = {key: str(reading.get(key, default)) for key, default in parts.items()}
    for key in ("checkpoint_root_dir", "project", "name"):
        if values[key].startswith("<") and values[key].endswith(">"):
            reading.notes.append(f"{reading.where(key)} {values[key]} is the document's placeholder; the folder will bear this name.")
    reading.take("checkpoint_root_dir", "output_dir", "/".join([values["checkpoint_root_dir"].rstrip("/"), *[
        values[key] for key in ("project", "group", "name") if values[key]
    ]]), "checkpoint_root_dir/project/name")  # fmt: skip
    for key in ("project", "group", "name"):
        if key in reading.entries:
            reading.ignore(key, "a part of output_dir")
    if "continue_from_checkpoint" in reading.entries:
        reading.ignore("continue_from_checkpoint", "nothing is resumed unasked: add --resume_from_checkpoint true to go on")


def _first(reading: Reading, *keys: str) -> str:
    """The first of several keys that is written and not null, or the first of all; the others that are written are told as void."""
    found = next((key for key in keys if reading.get(key) is not None), keys[0])
    for key in keys:
        if key != found and key in reading.entries:
            reading.ignore(key, f"{found} says it")
    return found


def _take_optimizer(reading: Reading) -> None:
    new, old = "algorithm.optimizer", f"{ACTOR}.optim"
    rate = _first(reading, f"{new}.lr", f"{old}.lr")
    reading.take(rate, "learning_rate", reading.get(rate, 1e-6))
    decay = _first(reading, f"{new}.weight_decay", f"{old}.weight_decay")
    reading.take(decay, "weight_decay", reading.get(decay, 0.01), "not on norms and biases here")
    style = _first(reading, f"{new}.warmup_style", f"{new}.lr_scheduler_type", f"{old}.warmup_style", f"{old}.lr_scheduler_type")
    kind = reading.get(style, "constant")
    steps = _first(reading, f"{new}.lr_warmup_steps", f"{old}.lr_warmup_steps")
    share = _first(reading, f"{new}.lr_warmup_steps_ratio", f"{old}.lr_warmup_steps_ratio")
    count, ratio = reading.number(steps, -1), reading.number(share, 0.0, float)
    if kind not in ("constant", "cosine"):
        reading.refuse(style, "is not known. Allowed: constant, cosine.", unless=("lr_scheduler_type",))
    else:
        warm = kind == "constant" and (count > 0 or ratio > 0)
        remark = "what follows the warm-up"
        reading.take(style, "lr_scheduler_type", "constant_with_warmup" if warm else kind, remark)
    if count > 0:
        reading.take(steps, "warmup_steps", count)
    if ratio > 0:
        reading.take(share, "warmup_ratio", ratio, "a share of all steps")
    _take_betas(reading, _first(reading, f"{new}.betas", f"{old}.betas"), old)
    least = _first(reading, f"{new}.min_lr_ratio", f"{old}.min_lr_ratio")
    lowest = reading.number(least, 0.0, float)
    if lowest and kind == "cosine":
        peak = reading.setting.given.get("learning_rate", reading.keys["learning_rate"].value if "learning_rate" in reading.keys else 0)
        try:
            end = lowest * float(peak)
        except (TypeError, ValueError):
            return  # a learning rate that is none is refused with all others
        reading.take(least, "min_learning_rate", end, f"{lowest:g} of learning_rate")
    elif least in reading.entries:
        reading.ignore(least, "the cosine ends at 0" if not lowest else "read with warmup_style cosine only")


def _take_betas(reading: Reading, key: str, old: str) -> None:
    betas = reading.get(key)
    if betas is None:
        for number in (1, 2):
            if f"{old}.beta{number}" in reading.entries:
                reading.take(f"{old}.beta{number}", f"adam_beta{number}", reading.get(f"{old}.beta{number}"))
        return
    if not isinstance(betas, list) or len(betas) != 2:
        reading.refuse(key, "two numbers are needed, [beta1, beta2].")
        return
    for number, beta in enumerate(betas, 1):
        reading.take(key, f"adam_beta{number}", beta)


def _take_objective(reading: Reading) -> None:
    """DPO's beta is kl_coef in the documents; the newer policy_loss_fn_args.beta wins where it stands."""
    keys = ("algorithm.policy_loss_fn_args.beta", "algorithm.kl_loss_fn_args.kl_coef", f"{ACTOR}.kl_loss_coef")
    if reading.command != "dpo":
        for key in (*keys, "algorithm.kl_loss_fn", "algorithm.policy_loss_fn_args.label_smoothing"):
            if key in reading.entries:
                reading.ignore(key, "of DPO's loss")
        return
    written = [key for key in keys if reading.get(key) is not None]
    reading.take(written[0] if written else keys[0], "beta", reading.get(written[0]) if written else 0.1, "DPO's beta")
    for key in written[1:]:
        reading.ignore(key, f"{written[0]} is beta here, and wins")
    if "algorithm.kl_loss_fn" in reading.entries:
        reading.ignore("algorithm.kl_loss_fn", "loads the reference model there; DPO's loss has it in itself, and its weight is beta")
    reading.take("algorithm.algorithm_type", "loss_type", "sigmoid", "the loss of algorithm_type dpo")


def _take_steps(reading: Reading) -> None:
    """The batch over all processes, how long the run is, when it saves."""
    take_layout(reading)
    take_lora(reading)
    key = _first(reading, "buffer.train_batch_size", "buffer.batch_size")
    rows = reading.number(key, None)
    if reading.get(key) is None:
        needed = "must be set: the rows of a step over all processes."
        reading.refuse("buffer.train_batch_size", needed, unless=("per_device_train_batch_size",))
    elif rows is not None:
        take_batch(reading, key, rows, micro=reading.number(f"{ACTOR}.ppo_micro_batch_size_per_gpu", None))
        if f"{ACTOR}.ppo_micro_batch_size_per_gpu" in reading.entries:
            reading.ignore(f"{ACTOR}.ppo_micro_batch_size_per_gpu", "see per_device_train_batch_size")
    for key in ("trainer.total_steps", "buffer.total_steps"):
        if reading.get(key) is not None:
            reading.take(key, "max_steps", reading.get(key), "wins over total_epochs")
    saves = reading.number("trainer.save_interval", 0)
    reading.take("trainer.save_interval", "save_strategy", "steps" if saves > 0 else "no", "the final model is always written")
    if saves > 0:
        reading.take("trainer.save_interval", "save_steps", saves, "in steps, as there")
    reading.take("monitor.monitor_type", "logging_steps", 1, "every step is logged there")
