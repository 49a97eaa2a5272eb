"""The keys of verl, which Trinity-RFT trains with: those that mean something here, and why the others do not."""

from paddlealign.arguments.dialects.reading import Reading, Renamed, Rule, Unless

ROOT = "trainer.trainer_config"
ACTOR = f"{ROOT}.actor_rollout_ref.actor"
MODEL = f"{ROOT}.actor_rollout_ref.model"
_WHOLE = "all of a run lies on its devices here"

RULES: dict[str, Rule] = {
    f"{ACTOR}.grad_clip": Renamed("max_grad_norm"),
    f"{ACTOR}.ppo_epochs": Unless((1,), "each row is read once an epoch", "Set total_epochs."),
    f"{ACTOR}.ulysses_sequence_parallel_size": Unless((1,), "sequences are not cut over processes here", "Set tensor_parallel_degree."),
    f"{ACTOR}.fsdp_config.param_offload": Unless((False,), _WHOLE),
    f"{ACTOR}.fsdp_config.optimizer_offload": Unless((False,), _WHOLE),
    f"{MODEL}.enable_gradient_checkpointing": Renamed("recompute"),
}
IGNORED_SECTIONS = {
    f"{ROOT}.critic": "DPO and SFT have no critic",
    f"{ROOT}.reward_model": "DPO and SFT have no reward model",
    f"{ROOT}.custom_reward_function": "DPO and SFT have no reward function",
    f"{ROOT}.algorithm": "read by reinforcement learning only",
    f"{ROOT}.data": "Trinity-RFT reads rows by its buffer section instead",
    f"{ROOT}.trainer": "Trinity-RFT sets these by its own sections",
    f"{ROOT}.actor_rollout_ref.rollout": "nothing is generated in training on given rows",
    f"{ROOT}.actor_rollout_ref.ref": "how fast the reference computes; here its log-probs are computed once and kept",
    f"{ACTOR}.optim": "set by verl at run time",
    f"{ROOT}.actor_rollout_ref": "of speed and memory, or read by reinforcement learning only",
    f"{ROOT}.enable_preview": "read by explorer and rollout only",
}

# Of the optimizer: what is read elsewhere or set by verl. Anything else there is a slip, which must not cost a learning rate.
_OPTIM = frozenset({
    "total_training_steps", "optimizer", "clip_grad", "lr_warmup_init", "lr_decay_steps", "lr_decay_style", "min_lr", "num_cycles",
    "weight_decay_incr_style", "lr_wsd_decay_style", "lr_wsd_decay_steps", "use_checkpoint_opt_param_scheduler",
})  # fmt: skip


def apply_verl(reading: Reading) -> None:
    """Read what stands under trainer.trainer_config, after Trinity-RFT's own keys, which win."""
    if ROOT in reading.entries:
        value = reading.get(ROOT)
        if value in (None, {}, "..."):
            reading.ignore(ROOT, "nothing stands there")
        else:
            reading.refuse(ROOT, "the keys of verl stand under it, indented.")
    reading.apply(RULES)
    if f"{MODEL}.enable_gradient_checkpointing" not in reading.entries:
        reading.take(f"{MODEL}.enable_gradient_checkpointing", "recompute", True)
    if not {"bf16", "fp16"} & set(reading.setting.given):
        reading.ignore("the number format", "float32 here, where nothing else is asked for: add --bf16 true on a GPU", "bfloat16")
    for key in reading.entries:
        if key.startswith(f"{ACTOR}.optim.") and key not in reading.seen and key.rpartition(".")[2] not in _OPTIM:
            reading.refuse(key, "unknown key. Did you mean lr, weight_decay, warmup_style or betas?")
    reading.ignore_sections(IGNORED_SECTIONS)


def take_layout(reading: Reading) -> None:
    """Which processes share what: FSDP is sharding stage3, Megatron's degrees are ours. One process has nothing to share."""
    strategy, megatron = reading.get(f"{ACTOR}.strategy", "fsdp"), f"{ACTOR}.megatron"
    if strategy == "megatron":
        reading.ignore(f"{ACTOR}.strategy", "the degrees below are its own")
        for theirs, ours in (("tensor_model", "tensor"), ("pipeline_model", "pipeline")):
            if f"{megatron}.{theirs}_parallel_size" in reading.entries:
                key = f"{megatron}.{theirs}_parallel_size"
                reading.take(key, f"{ours}_parallel_degree", reading.number(key, 1))
    elif strategy not in ("fsdp", "fsdp2"):
        reading.refuse(f"{ACTOR}.strategy", "is not known. Allowed: fsdp, fsdp2, megatron.")
    elif reading.started > 1:
        reading.take(f"{ACTOR}.strategy", "sharding", "stage3", "FSDP: weights, gradients and optimizer state are shared out")
    else:
        reading.ignore(f"{ACTOR}.strategy", "one process has nothing to share; in several it is sharding stage3", strategy)


def take_lora(reading: Reading) -> None:
    """An adapter, as verl describes it, or as newer versions of Trinity-RFT do."""
    if reading.get("model.lora_configs"):
        reading.refuse("model.lora_configs", "is not read. Set --lora true, --lora_rank and --lora_alpha.", unless=("lora",))
    rank = reading.number(f"{MODEL}.lora_rank", 0)
    if rank > 0:
        reading.take(f"{MODEL}.lora_rank", "lora", True, "a rank above 0 asks for an adapter")
        reading.take(f"{MODEL}.lora_rank", "lora_rank", rank)
        reading.take(f"{MODEL}.lora_alpha", "lora_alpha", reading.number(f"{MODEL}.lora_alpha", 16, float))
        reading.take(f"{MODEL}.target_modules", "lora_target_modules", reading.get(f"{MODEL}.target_modules", "all-linear"))
