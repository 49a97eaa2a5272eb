"""What TRL's two trainers are given alike. Runs in TRL's own environment."""

from typing import Any


def common_arguments(spec: dict[str, Any]) -> dict[str, Any]:
    """The arguments, from what the harness asks for."""
    return {
        "output_dir": spec["output_dir"],
        "per_device_train_batch_size": spec["batch"],
        "gradient_accumulation_steps": spec["accumulation"],
        "num_train_epochs": 1,
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "bf16": spec["bf16"],
        "gradient_checkpointing": spec["checkpointing"],
        "max_length": spec["max_length"],
        "seed": spec["seed"],
        "model_init_kwargs": {"dtype": "float32"},
    }
