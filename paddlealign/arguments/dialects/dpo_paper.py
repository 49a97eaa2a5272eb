"""The command line of the DPO paper's own code (hydra's ``key=value``), and the config.yaml that it leaves beside its checkpoints."""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from paddlealign.arguments.dialects.batch import take_batch
from paddlealign.arguments.dialects.data_keys import OUR_ROWS, refuse_named, take_wish
from paddlealign.arguments.dialects.reading import Entry, Ignored, Reading, Renamed, Rule, Setting, Unless, Where, plain_value
from paddlealign.errors import UserError

NAME = "the DPO paper's code"
# The models of its config/model, by the name that model= takes.
MODELS = {
    "pythia28": "EleutherAI/pythia-2.8b",
    "pythia69": "EleutherAI/pythia-6.9b",
    "llama7b": "huggyllama/llama-7b",
    "gptj": "EleutherAI/gpt-j-6b",
    "gpt2-large": "gpt2-large",
    "gpt2-xl": "gpt2-xl",
}
_OTHER_FAMILIES = ("EleutherAI/gpt-j-6b", "gpt2-large", "gpt2-xl")
# How its config.yaml stands without a word on the command line.
DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "batch_size": 4,
    "eval_batch_size": 16,
    "lr": 5e-7,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 10.0,
    "max_length": 512,
    "max_prompt_length": 256,
    "warmup_steps": 150,
    "eval_every": 20_000,
}
_RUN_LOG = "the run log is output_dir/metrics.jsonl here"
RULES: dict[str, Rule] = {
    "model.tokenizer_name_or_path": Renamed("tokenizer_name_or_path"),
    "activation_checkpointing": Renamed("recompute"),
    "fsdp_port": Ignored("paddle.distributed.launch chooses ports"),
    "minimum_log_interval_secs": Ignored("every step is logged here (logging_steps)"),
    "model.block_name": Ignored("the layers are known from the model's config.json"),
    "model.block": Ignored("the layers are known from the model's config.json"),
    "model.reference_dtype": Ignored("the reference computes in the policy's number format here"),
    "local_run_dir": Ignored("output_dir is made from exp_name"),
    "n_eval_model_samples": Where("n_eval_model_samples", Ignored("read with sample_during_eval only")),
    "sample_during_eval": Where(
        "sample_during_eval", Unless((False,), "evaluation generates no texts", "Leave it out, and run predict.py on the checkpoints.")
    ),
    "do_first_eval": Unless((False,), "nothing is evaluated before the first step", "Leave it out; --check shows the first loss."),
    "loss.name": Ignored("see loss"),
    "model.name_or_path": Ignored("see model"),
}


def words_as_entries(words: Sequence[str]) -> dict[str, Entry]:
    """``key=value`` words as entries. Raises UserError for a word that is none, and for a key that stands there twice."""
    entries: dict[str, Entry] = {}
    for word in words:
        key, equals, text = word.lstrip("+").partition("=")
        if not equals or not re.fullmatch(r"[\w./@-]+", key):
            raise UserError(f"command line: {word}: every word is key=value, as in loss.beta=0.1.")
        if key in entries:
            raise UserError(f"command line: {key} stands there twice. Keep one of them.")
        listed = re.fullmatch(r"\[(.*)\]", text)
        items = [item.strip().strip("'\"") for item in listed[1].split(",") if item.strip()] if listed else []
        entries[key] = Entry(items if listed else plain_value(text.strip("'\"")), "command line")
    return entries


def read_dpo_paper(entries: dict[str, Entry], setting: Setting) -> Reading:
    """Our keys for a run of the DPO paper's code."""
    reading = Reading(NAME, entries, setting)
    loss = reading.get("loss", reading.get("loss.name", "sft"))
    if loss not in ("sft", "dpo", "ipo"):
        reading.refuse("loss" if "loss" in entries else "loss.name", "is not known. Allowed: sft, dpo, ipo.")
        return reading
    reading.command = "sft" if loss == "sft" else "dpo"
    if "loss" in entries:
        reading.ignore("loss", f"{reading.command}_main.py runs it")
    reading.take("loss", "do_train", True)
    _take_loss(reading, str(loss))
    _take_model(reading)
    _take_rows(reading)
    _take_optimizer(reading)
    _take_trainer(reading)
    _take_steps(reading)
    _take_output(reading)
    reading.apply(RULES)
    for key in ("sample_during_eval", "do_first_eval"):
        if key not in entries:
            reading.ignore(key, f"on by {NAME}'s default; here only where it is asked for, if at all", True)
    reading.ignore_sections({"wandb": _RUN_LOG, "debug": "see save_strategy", "defaults": "hydra's own", "hydra": "hydra's own"})
    return reading.finish(". See config/config.yaml of that code for its keys.")


def _default(reading: Reading, key: str, kind: type = int) -> Any:
    return reading.number(key, DEFAULTS[key], kind)


def _take_loss(reading: Reading, loss: str) -> None:
    keys = ("loss.beta", "loss.label_smoothing", "loss.reference_free")
    if loss == "sft":
        for key in keys:
            if key in reading.entries:
                reading.ignore(key, "SFT has no reference model")
        return
    beta = reading.get("loss.beta")
    if beta is None:
        reading.refuse("loss.beta", "is not set, and has no default there. Set loss.beta=0.1, for example.", unless=("beta",))
    else:
        reading.take("loss.beta", "beta", beta)
    reading.take("loss", "loss_type", "sigmoid" if loss == "dpo" else "ipo")
    if loss == "ipo":
        reading.take("loss", "ipo_average", "sum", "ipo on summed log-probs, as there")
    for key in keys[1:]:
        if key in reading.entries and loss == "ipo":
            reading.ignore(key, "not read by ipo")
        elif key in reading.entries:
            reading.take(key, key.removeprefix("loss."), reading.get(key))


def _take_model(reading: Reading) -> None:
    """The SFT checkpoint where there is one (model.archive), else the named model, which is a folder here."""
    archive, named = reading.get("model.archive"), reading.get("model")
    path = reading.get("model.name_or_path")
    if archive is not None:
        folder = str(PurePath(archive).parent) if str(archive).endswith(".pt") else str(archive).rstrip("/")
        remark = "the folder that sft_main.py wrote; weights, config.json and tokenizer are taken from it, for the reference too"
        reading.take("model.archive", "model_name_or_path", folder, remark)
        for key in ("model", "model.name_or_path"):
            if key in reading.entries:
                reading.ignore(key, "model.archive names the checkpoint")
    elif path is not None and path != MODELS.get(str(named)):
        reading.take("model.name_or_path", "model_name_or_path", path)
        if named is not None:
            reading.ignore("model", "model.name_or_path names the model")
    else:
        hub = MODELS.get(str(named or path), named or path)
        key = "model" if named is not None else "model.name_or_path"
        if hub in MODELS.values() and hub not in _OTHER_FAMILIES:
            reading.take(key, "model_name_or_path", hub, "a hub's id; model.name_or_path=FOLDER where it was downloaded")
            return
        told = f"is {hub}, of a family that is not here" if hub in _OTHER_FAMILIES else "is not known"
        reading.refuse(
            key, f"{told}. Add model.name_or_path=FOLDER." if hub else "is not set. Add model.name_or_path=FOLDER.",
            unless=("model_name_or_path",),
        )  # fmt: skip


_FORMS = {"hh": "hh", "shp": "shp", "se": "stack_exchange"}  # their data set -> the form of its rows
# Where their readers fetch them. Not se: it is one split of ten million rows, of which they hold out every hundredth themselves.
_HUB = {"hh": "Anthropic/hh-rlhf", "shp": "stanfordnlp/SHP"}


def _take_rows(reading: Reading) -> None:
    """Its data sets are functions with names; a folder or file of rows may stand there as well."""
    names = reading.get("datasets", ["hh"])
    listed = names if isinstance(names, list) else [names]
    paths = [str(name) for name in listed if "/" in str(name) or "." in str(name)]
    if listed and len(paths) == len(listed):
        if len(paths) == 1:
            reading.take("datasets", "dataset_name_or_path", paths[0], "rows as data/README.md shows them")
        else:
            reading.take("datasets", "train_dataset_path", paths, "one after the other")
    else:
        if listed and all(str(name) in _HUB for name in listed) and not any(key in reading.setting.given for key in OUR_ROWS):
            hub = [_HUB[str(name)] for name in listed]
            reading.take("datasets", "dataset_name_or_path", hub, "a hub's id; --dataset_name_or_path FOLDER where it was downloaded")
        else:
            refuse_named(reading, "datasets")
        if reading.command == "sft" and len(listed) == 1 and str(listed[0]) in _FORMS:
            reading.take("datasets", "row_form", _FORMS[str(listed[0])], "SFT on the chosen answers of its pairs, as there")
        if reading.command == "dpo" and "se" in listed:
            reading.take("datasets", "pairs", "all", "every two answers, as there; but not two of equal score")
    reading.take("datasets", "chat_template", "none", "texts are joined as they are, as there")
    whole, prompt = _default(reading, "max_length"), _default(reading, "max_prompt_length")
    reading.take("max_length", "max_length", whole, "the prompt and ONE response, as there")
    reading.take("max_prompt_length", "src_length", prompt)
    reading.take(
        "max_length", "truncation", "truncate_prompt", "cuts a prompt's start, as there for hh; longer answers are left out, not cut"
    )
    if reading.get("n_eval_examples") is not None:
        take_wish(reading, "n_eval_examples", "eval_rows", reading.get("n_eval_examples"), unless=("dev_dataset_path",))
    else:
        reading.ignore("n_eval_examples", f"{NAME} evaluates 256 rows; here all dev rows are", 256)


def _take_optimizer(reading: Reading) -> None:
    name = reading.get("optimizer")
    if name is None:
        reading.ignore("optimizer", "their default is RMSprop; AdamW is the optimizer here", "RMSprop")
    elif name in ("Adam", "AdamW"):
        reading.ignore("optimizer", "AdamW; without decay it is Adam")
    else:
        reading.refuse("optimizer", "is not here. Set optimizer=AdamW.")
    if name == "AdamW":
        reading.take("optimizer", "weight_decay", 0.01, "PyTorch's default for AdamW; not on norms and biases here")
    reading.take("lr", "learning_rate", _default(reading, "lr", float))
    warm = _default(reading, "warmup_steps")
    reading.take("warmup_steps", "lr_scheduler_type", "constant_with_warmup" if warm else "constant", "level after the warm-up, as there")
    if warm:
        reading.take("warmup_steps", "warmup_steps", warm)
    reading.take("max_grad_norm", "max_grad_norm", _default(reading, "max_grad_norm", float))
    reading.take("seed", "seed", _default(reading, "seed"), "another order of the rows than there, all the same")
    for key, remark in (("model.fsdp_policy_mp", "matmuls only, under FSDP"), ("model.policy_dtype", "the policy's weights")):
        kind = {"bfloat16": "bf16", "float16": "fp16"}.get(str(reading.get(key)))
        if kind and kind not in reading.keys:
            reading.take(key, kind, True, remark)
            if key == "model.policy_dtype":
                reading.take(key, "fp16_opt_level", "O2", "with float32 master weights")
        elif key in reading.entries:
            reading.ignore(key, "float32 is the default here")


def _take_trainer(reading: Reading) -> None:
    name, devices = reading.get("trainer", "BasicTrainer"), reading.started
    if name not in ("BasicTrainer", "FSDPTrainer", "TensorParallelTrainer"):
        reading.refuse("trainer", "is not known. Allowed: BasicTrainer, FSDPTrainer, TensorParallelTrainer.")
    elif name == "FSDPTrainer" and devices > 1:
        reading.take("trainer", "sharding", "stage3", "weights, gradients and optimizer state are shared out")
    elif name == "TensorParallelTrainer" and devices > 1:
        reading.take("trainer", "tensor_parallel_degree", devices, "all processes share each layer")
    elif "trainer" in reading.entries:
        reading.ignore("trainer", "one process has nothing to share; paddle.distributed.launch starts several, and --processes counts them")


def _take_steps(reading: Reading) -> None:
    rows, steps = _default(reading, "batch_size"), _default(reading, "gradient_accumulation_steps")
    take_batch(reading, "batch_size", rows, steps=steps, steps_key="gradient_accumulation_steps")
    apart = max(1, reading.started)
    reading.take(
        "eval_batch_size", "per_device_eval_batch_size", max(1, _default(reading, "eval_batch_size") // apart), "over all processes there"
    )
    examples, epochs = reading.number("n_examples", None), reading.get("n_epochs", 1)
    if examples:
        remark = f"{examples} examples in steps of {rows}" + ("; n_epochs, which may end it earlier there, is not read" if epochs else "")
        reading.take("n_examples", "max_steps", -(-examples // max(1, rows)), remark)
        if "n_epochs" in reading.entries:
            reading.ignore("n_epochs", "n_examples says how long the run is")
    else:
        if "n_examples" in reading.entries:
            reading.ignore("n_examples", "n_epochs says how long the run is")
        reading.take("n_epochs", "num_train_epochs", epochs)
    every = max(1, _default(reading, "eval_every") // max(1, rows))
    reading.take("eval_every", "evaluation_strategy", "steps")
    reading.take("eval_every", "eval_steps", every, f"counts EXAMPLES there, {rows} a step")
    saves = reading.get("debug", False) is not True
    reading.take(
        "eval_every", "save_strategy", "steps" if saves else "no", "saved where it is evaluated" if saves else "debug=true saves nothing"
    )
    if saves:
        reading.take("eval_every", "save_steps", every, "saved where it is evaluated")
    reading.take("minimum_log_interval_secs", "logging_steps", 1, "every step; there at most one a second")


def _take_output(reading: Reading) -> None:
    """Both stages of its README bear one exp_name; there a time in the folder's name keeps them apart."""
    name, roots = reading.get("exp_name"), reading.get("local_dirs")
    root = str(roots[-1]) if isinstance(roots, list) and roots else "output"
    if name is None:
        reading.refuse("exp_name", "is not set, and has no default there.", unless=("output_dir",))
    else:
        reading.take("exp_name", "output_dir", f"{root}/{name}_{reading.command}", "the method in place of the time that is there")
    if "local_dirs" in reading.entries:
        reading.ignore("local_dirs", "the last one is where output_dir lies")
