"""Keys that PaddleNLP's users bring and that are no fields here: other names, keys with one allowed value, keys with nothing to do.

Every key of PaddleNLP's SFT, DPO, quantisation and predictor arguments is either a field (fields.py), a parallel degree
(degrees.py), or in one of the three tables below. Anything else is unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Alias:
    """Another name of a key.

    commands: where the name means that. dpo_remark: what a DPO user should know beyond the name. kind: its type where the key's is another.
    """

    key: str
    dpo_remark: str = ""
    commands: tuple[str, ...] = ("sft", "reward", "dpo")
    kind: type | None = None


@dataclass(frozen=True)
class OnlyValue:
    """A key that asks for something that is not here, unless it has one of these values (or is null, or empty)."""

    kind: type
    allowed: tuple[Any, ...]
    why: str


@dataclass(frozen=True)
class Hint:
    """A key that asks for nothing that could change a number here. Told once when it is set; silent where it is off."""

    kind: type
    why: str
    off: tuple[Any, ...] = (False, 0, -1, "")


_EVERY = ("sft", "reward", "dpo", "predict", "evaluate_rewards", "evaluate_perplexity", "evaluate_judge", "evaluate_compare")
_GENERATING = ("predict", "evaluate_compare")
_ONE_ANSWER = (
    "PaddleNLP counts the prompt and both answers, here it bounds the prompt and ONE answer. PaddleNLP's DPO also packs rows always and "
    "counts batches in packed rows; here that is zero_padding true, and without it batches count pairs"
)

ALIASES: dict[str, Alias] = {
    "dpo_beta": Alias("beta"),
    "pref_beta": Alias("beta", "with LLaMA-Factory's orpo it is the loss's weight, which is pref_loss_ratio here"),
    "dpo_loss_type": Alias("loss_type"),
    "pref_loss": Alias("loss_type"),
    "dpo_label_smoothing": Alias("label_smoothing"),
    "rpo_alpha": Alias("sft_loss_ratio"),
    "cpo_alpha": Alias("sft_loss_ratio"),
    "pref_ftx": Alias("sft_loss_ratio", "LLaMA-Factory averages each answer over its tokens first, which is the loss sft_norm here"),
    "dpo_benchmark": Alias("benchmark"),
    "max_seq_len": Alias("max_length", _ONE_ANSWER),
    "max_seq_length": Alias("max_length"),
    "cutoff_len": Alias("max_length"),
    "max_prompt_len": Alias("src_length"),
    "max_prompt_length": Alias("src_length"),
    "max_new_tokens": Alias("max_length", commands=_GENERATING),
    "min_new_tokens": Alias("min_length", commands=_GENERATING),
    "diversity_penalty": Alias("diversity_rate", commands=_GENERATING),
    "task_name_or_path": Alias("dataset_name_or_path"),
    "intokens": Alias("zero_padding"),
    "prompt_type": Alias("row_form"),
    "score_all_turns": Alias("score_turns", commands=("sft", "evaluate_perplexity"), kind=bool),
    "subset_name": Alias("subset"),
    "ref_model": Alias("ref_model_name_or_path"),
    "ref_model_adapters": Alias("ref_lora_path"),
    "actor_model_name_or_path": Alias("model_name_or_path"),
    "gradient_checkpointing": Alias("recompute"),
    "activation_checkpointing": Alias("recompute"),
    "actor_gradient_checkpointing": Alias("recompute"),
    "eval_strategy": Alias("evaluation_strategy"),
    "lora_dim": Alias("lora_rank"),
    "actor_lora_dim": Alias("lora_rank"),
    "sharding_degree": Alias("sharding_parallel_degree", commands=_EVERY),
}

# Names that users try, and the keys that they may mean: the first that the command has is proposed.
NEAREST: dict[str, tuple[str, ...]] = {
    "lr": ("learning_rate",),
    "epochs": ("num_train_epochs",),
    "batch_size": ("per_device_train_batch_size",),
    "train_batch_size": ("per_device_train_batch_size",),
    "max_tokens": ("tokens_per_batch", "max_length"),
    "eval_batch_size": ("per_device_eval_batch_size", "batch_size"),
    "per_device_eval_batch_size": ("batch_size",),
    "per_device_train_batch_size": ("batch_size",),
    "dataset_name_or_path": ("data_file",),
    "dev_dataset_path": ("data_file",),
    "data_file": ("dataset_name_or_path",),
    "output_dir": ("output_file",),
    "output_file": ("output_dir",),
    "model": ("model_name_or_path",),
    "model_path": ("model_name_or_path",),
}

_FULL = "of the adapters there is LoRA only (lora); leave the key out"
_QUANT = "quantised weights are not in this version; start from the float checkpoint"
_BENCH = "it switches evaluation and saving off in PaddleNLP; set evaluation_strategy and save_strategy to no, and max_steps, instead"
_HUB = "checkpoints are folders here, nothing is fetched or sent; download the checkpoint and give its folder"
_PLAIN_PREDICT = "predict runs the plain decoder only; leave the key out"
_ALL_METRICS = "evaluation always reports loss and accuracy"

ONLY: dict[str, OnlyValue] = {
    "ref_model_update_steps": OnlyValue(
        int,
        (-1, 0),
        "it counts micro-batches in PaddleNLP; set sync_ref_model, ref_model_mixup_alpha 1, and optimizer steps as ref_model_sync_steps",
    ),
    "pissa": OnlyValue(bool, (False,), "an adapter starts from zero here, not from the weights' singular vectors"),
    "lora_merge_weights": OnlyValue(bool, (False,), "training keeps the adapter apart; python -m paddlealign.export --lora_path merges it"),
    "lora_use_mixer": OnlyValue(bool, (False,), _FULL),
    "use_mora": OnlyValue(bool, (False,), _FULL),
    "prefix_tuning": OnlyValue(bool, (False,), _FULL),
    "prefix_path": OnlyValue(str, (), _FULL),
    "vera": OnlyValue(bool, (False,), _FULL),
    "lokr": OnlyValue(bool, (False,), _FULL),
    "lokr_path": OnlyValue(str, (), _FULL),
    "reft": OnlyValue(bool, (False,), _FULL),
    "reft_path": OnlyValue(str, (), _FULL),
    "weight_quantize_algo": OnlyValue(str, (), _QUANT),
    "quant_type": OnlyValue(str, ("a8w8",), _QUANT),  # PaddleNLP's default, read only under do_ptq and the like
    "do_qat": OnlyValue(bool, (False,), _QUANT),
    "do_ptq": OnlyValue(bool, (False,), _QUANT),
    "do_gptq": OnlyValue(bool, (False,), _QUANT),
    "do_awq": OnlyValue(bool, (False,), _QUANT),
    "load_quant_model": OnlyValue(bool, (False,), _QUANT),
    "do_quant_debug": OnlyValue(bool, (False,), _QUANT),
    "ckpt_quant_stage": OnlyValue(str, ("O0",), "checkpoints keep every bit"),
    "neftune": OnlyValue(bool, (False,), "noise on the embeddings is not in this version"),
    "use_long_sequence_strategies": OnlyValue(bool, (False,), "the rotary scaling is taken from the checkpoint's config.json"),
    "rope_scaling_factor": OnlyValue(float, (1.0,), "the rotary scaling is taken from the checkpoint's config.json"),
    "use_ssa": OnlyValue(bool, (False,), "shifted sparse attention is not in this version"),
    "use_pose_convert": OnlyValue(bool, (False,), "positions are always the tokens' own"),
    "autoregressive": OnlyValue(bool, (False,), "SFT scores the answer's tokens; plain language modelling is not in this version"),
    "continue_training": OnlyValue(bool, (True,), "training starts from the weights of model_name_or_path"),
    "recompute_granularity": OnlyValue(str, ("full",), "a layer is recomputed as a whole or not at all (recompute)"),
    "refined_recompute": OnlyValue(str, (), "a layer is recomputed as a whole or not at all (recompute)"),
    "no_recompute_layers": OnlyValue(str, (), "all layers are recomputed or none (recompute)"),
    "eval_with_do_generation": OnlyValue(
        bool, (False,), "evaluation scores the dev rows; sample_during_eval (sft, dpo) lets it answer prompts beside that"
    ),
    "save_generation_output": OnlyValue(bool, (False,), "sample_during_eval (sft, dpo) keeps the answers that evaluation generates"),
    "do_predict": OnlyValue(bool, (False,), "run predict.py on the checkpoint for texts"),
    "do_export": OnlyValue(bool, (False,), "checkpoints are written in HuggingFace's layout only"),
    "prediction_loss_only": OnlyValue(bool, (False,), _ALL_METRICS),
    "label_names": OnlyValue(str, (), "there are no label columns here"),
    "optim": OnlyValue(str, ("adamw",), "AdamW is the optimizer of this version"),
    "decay_steps": OnlyValue(int, (0,), "the schedules decay over the whole run"),
    "num_cycles": OnlyValue(float, (0.5,), "the cosine is one half wave"),
    "dataloader_drop_last": OnlyValue(bool, (False,), "the last, smaller step of an epoch is kept; exact weighting makes it right"),
    "ignore_data_skip": OnlyValue(bool, (False,), "a resumed run always goes on with the rows that come next"),
    "ignore_load_lr_and_optim": OnlyValue(
        bool, (False,), "a resumed run takes optimizer and schedule along; give the checkpoint as model_name_or_path to start these anew"
    ),
    "ignore_save_lr_and_optim": OnlyValue(bool, (False,), "checkpoints always hold what a resume needs"),
    "skip_data_intervals": OnlyValue(str, (), "no rows are skipped; take them out of the file"),
    "minimum_eval_times": OnlyValue(int, (), "set eval_steps"),
    "max_evaluate_steps": OnlyValue(int, (-1,), "evaluation reads all dev rows; give a smaller dev file"),
    "logging_strategy": OnlyValue(str, ("steps",), "the run log is written every logging_steps"),
    "logging_first_step": OnlyValue(bool, (False,), "the run log is written every logging_steps; 1 writes every step"),
    "logging_dir": OnlyValue(str, (), "all logs stand in output_dir"),
    "output_signal_dir": OnlyValue(str, (), "all output stands in output_dir"),
    "metrics_output_path": OnlyValue(str, (), "the metrics stand in output_dir/metrics.jsonl"),
    "wandb_api_key": OnlyValue(str, (), "wandb reads it from WANDB_API_KEY or its own login; take it out of the file, it is a secret"),
    "wandb_http_proxy": OnlyValue(str, (), "set HTTPS_PROXY in the environment, which wandb reads"),
    "bf16_full_eval": OnlyValue(bool, (False,), "evaluation computes as training does (bf16)"),
    "fp16_full_eval": OnlyValue(bool, (False,), "evaluation computes as training does (fp16)"),
    "amp_custom_black_list": OnlyValue(str, (), "which operations run in 16 bits is fixed (fp16_opt_level)"),
    "amp_custom_white_list": OnlyValue(str, (), "which operations run in 16 bits is fixed (fp16_opt_level)"),
    "no_cuda": OnlyValue(bool, (False,), 'set device to "cpu" instead'),
    "benchmark": OnlyValue(bool, (False,), _BENCH),
    "autotuner_benchmark": OnlyValue(bool, (False,), _BENCH),
    "to_static": OnlyValue(bool, (False,), "training runs in dynamic mode"),
    "enable_auto_parallel": OnlyValue(bool, (False,), "training runs in dynamic mode"),
    "use_expert_parallel": OnlyValue(bool, (False,), "mixture-of-experts models are not in this version"),
    "task_name": OnlyValue(str, (), "rows come from files; give them by dataset_name_or_path"),
    "from_aistudio": OnlyValue(bool, (False,), _HUB),
    "save_to_aistudio": OnlyValue(bool, (False,), _HUB),
    "pdc_download_ckpt": OnlyValue(bool, (False,), _HUB),
    "mode": OnlyValue(str, ("dynamic",), _PLAIN_PREDICT),
    "inference_model": OnlyValue(bool, (False,), _PLAIN_PREDICT),
    "avx_model": OnlyValue(bool, (False,), _PLAIN_PREDICT),
    "use_fake_parameter": OnlyValue(bool, (False,), _PLAIN_PREDICT),
    "export_precache": OnlyValue(bool, (False,), _PLAIN_PREDICT),
    "do_sample": OnlyValue(bool, (), "it is decode_strategy in predict.py: sampling, or greedy_search"),
    "cachekv_int8_type": OnlyValue(str, (), _PLAIN_PREDICT),
    "model_type": OnlyValue(str, (), "the kind of model is read from its config.json"),
}

_ATTENTION = "attention always takes flash-mask row indices, on every device"
_CHECKPOINT = "checkpoints are whole and in HuggingFace's layout whatever the devices"
_FUSED = "a matter of speed in PaddleNLP; the kernels are chosen here"
_INPUT = "how rows are fed changes no number here"
_PARALLEL = "a matter of several processes; one process computes the same numbers without it"
_LORA = "read only with another adapter than LoRA, which is off"
_QUANT_PART = "read only with quantisation, which is off"


def _hints(why: str, keys: Mapping[str, type]) -> dict[str, Hint]:
    return {key: Hint(kind, why) for key, kind in keys.items()}


HINTS: dict[str, Hint] = {
    **_hints(
        _ATTENTION, {"use_flash_attention": bool, "flash_mask": bool, "use_sparse_mask": bool, "use_attn_mask_start_row_indices": bool}
    ),
    **_hints(
        _CHECKPOINT, {"unified_checkpoint": bool, "unified_checkpoint_config": str, "save_sharded_model": bool, "load_sharded_model": bool}
    ),
    **_hints(_CHECKPOINT, {"use_async_save": bool, "ordered_save_group_size": int, "force_reshard_pp": bool}),
    **_hints(_CHECKPOINT, {"auto_parallel_resume_form_hybrid_parallel": bool, "save_sharding_stage1_model_include_freeze_params": bool}),
    **_hints(_FUSED, {"fuse_attention_qkv": bool, "fuse_attention_ffn": bool, "use_fused_rms_norm": bool, "use_fused_rope": bool}),
    **_hints(
        _FUSED,
        {"use_fused_linear": bool, "use_fused_dropout_add": bool, "use_fused_linear_cross_entropy": bool, "use_fast_layer_norm": bool},
    ),
    **_hints(_FUSED, {"flatten_param_grads": bool, "release_grads": bool, "offload_optim": bool, "offload_recompute_inputs": bool}),
    **_hints(_FUSED, {"recompute_use_reentrant": bool, "block_attn": bool, "block_size": int}),
    **_hints("evaluation keeps sums, not predictions; there is nothing to move", {"eval_accumulation_steps": int}),
    **_hints(_INPUT, {"lazy": bool, "lazy_data_processing": bool, "dataloader_num_workers": int, "distributed_dataloader": bool}),
    **_hints(_INPUT, {"pad_to_multiple_of": int, "pad_to_max_length": bool, "remove_unused_columns": bool, "pad_token_id": int}),
    **_hints(_PARALLEL, {"tensor_parallel_output": bool, "pipeline_parallel_config": str, "tensor_parallel_config": str}),
    **_hints(_PARALLEL, {"sharding_parallel_config": str, "data_parallel_config": str, "sequence_parallel_config": str}),
    **_hints(_PARALLEL, {"hybrid_parallel_topo_order": str, "fuse_sequence_parallel_allreduce": bool, "split_inputs_sequence_dim": bool}),
    **_hints(_PARALLEL, {"sharding_parallel_mesh_dimension": str, "sharding_comm_buffer_size_MB": int, "ddp_find_unused_parameters": bool}),
    **_hints(_PARALLEL, {"log_on_each_node": bool, "save_on_each_node": bool, "local_rank": int, "pp_recompute_interval": int}),
    **_hints("gradients are kept in float32 under O2", {"amp_master_grad": bool}),
    **_hints("loss scaling starts high and adapts by itself", {"scale_loss": float}),
    **_hints("LLaMA and Qwen have no dropout", {"hidden_dropout_prob": float, "attention_probs_dropout_prob": float}),
    **_hints("the run log always counts tokens", {"count_trained_tokens": bool, "skip_profile_timer": bool, "skip_memory_metrics": bool}),
    **_hints("read only by the polynomial schedule", {"lr_end": float, "power": float}),
    **_hints(_LORA, {"vera_rank": int, "lokr_dim": int, "num_prefix_tokens": int}),
    **_hints("a matter of speed in PaddleNLP; an adapter computes the same here", {"use_quick_lora": bool}),
    **_hints("under lora all else stays as it is; without it all weights are trained", {"only_optimize_lora": bool}),
    **_hints("read only with neftune, which is off", {"neftune_noise_alpha": float}),
    **_hints("read only with use_ssa, which is off", {"ssa_group_size_ratio": float}),
    **_hints("read only with use_long_sequence_strategies, which is off", {"strategy_type": str, "strategy_name": str}),
    **_hints(
        _QUANT_PART,
        {"weight_blocksize": int, "weight_double_quant": bool, "weight_double_quant_block_size": int, "ptq_step": int, "shift": bool},
    ),
    **_hints(_QUANT_PART, {"shift_all_linears": bool, "shift_sampler": str, "shift_step": int, "smooth": bool, "smooth_all_linears": bool}),
    **_hints(_QUANT_PART, {"smooth_sampler": str, "smooth_step": int, "smooth_piecewise_search": bool, "smooth_k_piece": int}),
    **_hints(
        _QUANT_PART,
        {"smooth_search_piece": bool, "gptq_step": int, "auto_clip": bool, "awq_step": int, "autoclip_step": int, "fp8_type": list},
    ),
    **_hints(_QUANT_PART, {"skip_list_names": list, "weight_quant_method": str, "act_quant_method": str, "cachekv_quant_method": str}),
    **_hints(
        _QUANT_PART,
        {"search_alpha_min": float, "search_alpha_max": float, "search_scale_min": float, "search_scale_max": float, "test_sample": str},
    ),
    **_hints("read only with from_aistudio or save_to_aistudio, which are off", {"aistudio_repo_id": str, "aistudio_repo_private": bool}),
    **_hints("read only with from_aistudio or save_to_aistudio, which are off", {"aistudio_repo_license": str, "aistudio_token": str}),
    **_hints("read only with avx_model, which is off", {"avx_type": str, "avx_cachekv_type": str}),
    **_hints("read only with mode static", {"model_prefix": str}),
    **_hints("read only with use_expert_parallel, which is off", {"expert_max_capacity": int, "expert_min_capacity": int}),
    **_hints("read only with pdc_download_ckpt, which is off", {"pdc_download_timeout": int}),
    **_hints("nothing reads it in PaddleNLP either", {"past_index": int}),
}
