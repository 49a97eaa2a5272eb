"""Trinity-RFT's YAML, as the documents have it word for word, as our arguments; and what is told and refused."""

import json
from pathlib import Path

import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.dialects.conversion import convert
from paddlealign.arguments.dialects.files import read_yaml_configuration
from paddlealign.arguments.dialects.reading import Reading, Setting
from paddlealign.errors import UserError

FILES = Path(__file__).parent / "dialect_files"
MODELS = {"MODEL_PATH": "models", "DATASET_PATH": "sets"}


def document(tmp_path: Path, name: str) -> Path:
    """A document's example with its paths put in, beside the trainer's file."""
    text = (FILES / name).read_text(encoding="utf-8")
    for placeholder, path in (
        ("/PATH/TO/CHECKPOINT/", "runs/"),
        ("/PATH/TO/MODEL/", "models/qwen"),
        ("/PATH/TO/SFT_DATASET/", "sets/sft"),
        ("/PATH/TO/TRAIN_CONFIG_YAML/", "examples/dpo_humanlike/train_dpo.yaml"),
    ):
        text = text.replace(placeholder, path)
    (tmp_path / "examples/dpo_humanlike").mkdir(parents=True, exist_ok=True)
    (tmp_path / "examples/dpo_humanlike/train_dpo.yaml").write_text((FILES / "train_dpo.yaml").read_text(encoding="utf-8"))
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


LEAST = """
mode: train
algorithm: {algorithm_type: dpo}
checkpoint_root_dir: runs
model: {model_path: m, max_model_len: 100}
buffer:
  train_batch_size: 8
  trainer_input:
    experience_buffer:
      path: rows
      format: {prompt_type: plaintext}
"""


def start(tmp_path: Path, text: str, command="dpo", *words: str, environment=None):
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return parse(command, [str(path), *words], environment or {})


def refused(tmp_path: Path, text: str, command="dpo", *words: str, environment=None) -> str:
    with pytest.raises(UserError) as caught:
        start(tmp_path, text, command, *words, environment=environment)
    return str(caught.value)


def why(arguments, theirs: str) -> str:
    return " | ".join(line.why for line in arguments.told if line.theirs == theirs)


# ---- the documents' examples, word for word


def test_the_english_dpo_example(tmp_path):
    path = document(tmp_path, "trinity_dpo.yaml")
    arguments = parse("dpo", [str(path)], MODELS)
    assert arguments.model.model_name_or_path == "models/Qwen2.5-1.5B-Instruct"
    assert arguments.data.dataset_name_or_path in ("sets/human_like_dpo_dataset", ["sets/human_like_dpo_dataset"])
    assert arguments.objective.beta == 0.1 and arguments.objective.loss_type == "sigmoid"
    training = arguments.training
    assert training.output_dir == "runs/<project_name>/<experiment_name>"
    assert (training.num_train_epochs, training.save_strategy, training.save_steps) == (2, "steps", 30)
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == 64
    # from the trainer's own file
    assert (training.learning_rate, training.lr_scheduler_type, training.warmup_ratio) == (5e-7, "cosine", 0.03)
    assert (training.adam_beta1, training.adam_beta2, training.per_device_train_batch_size) == (0.9, 0.95, 2)
    assert training.recompute and training.do_train and not training.do_eval
    assert "--gpus 0,1,2,3,4,5,6,7 dpo_main.py" in " ".join(arguments.notes)
    assert "beta here, and wins" in why(arguments, "trainer.trainer_config.actor_rollout_ref.actor.kl_loss_coef")
    assert arguments.sources["beta"] == "file"
    assert {line.theirs: line.value for line in arguments.told}["trainer.trainer_config.actor_rollout_ref.rollout.*"] == "7 keys"


def test_the_english_sft_example(tmp_path):
    arguments = parse("sft", [str(document(tmp_path, "trinity_sft.yaml"))], {})
    assert arguments.model.model_name_or_path == "models/qwen"
    assert arguments.training.num_train_epochs == 5 and arguments.training.save_steps == 50
    assert arguments.training.per_device_train_batch_size * arguments.training.gradient_accumulation_steps == 64
    assert arguments.objective.score_turns == "last"  # enable_concatenated_multi_turn is false there
    assert "--gpus 0,1 sft_main.py" in " ".join(arguments.notes)
    assert "of DPO's loss" in why(arguments, "trainer.trainer_config.actor_rollout_ref.actor.kl_loss_coef")


@pytest.mark.parametrize(("method", "epochs", "devices"), [("dpo", 2, 8), ("sft", 5, 2)])
def test_the_chinese_examples_with_their_indentation(tmp_path, method, epochs, devices):
    path = document(tmp_path, f"trinity_{method}.zh.yaml")
    environment = {"DATASET_PATH": "sets", "TRINITY_MODEL_PATH": "models/qwen", "PADDLE_TRAINERS_NUM": str(devices)}
    arguments = parse(method, [str(path)], environment)
    assert arguments.model.model_name_or_path == "models/qwen"
    assert arguments.training.output_dir == "./checkpoints/<project_name>/<experiment_name>"  # the default of ${oc.env:...}
    assert arguments.training.num_train_epochs == epochs
    assert arguments.training.per_device_train_batch_size * arguments.training.gradient_accumulation_steps * devices == 64
    assert arguments.training.sharding == "stage3"
    assert not any("asks for" in note for note in arguments.notes)
    assert arguments.training.learning_rate == 1e-6 and "their default" in why(arguments, "algorithm.optimizer.lr")
    del environment["TRINITY_MODEL_PATH"]
    assert parse(method, [str(path)], environment).model.model_name_or_path == "Qwen/Qwen2.5-1.5B-Instruct"


@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_a_paste_without_indentation_is_told_as_that(tmp_path, method):
    path = document(tmp_path, f"trinity_{method}_pasted.zh.yaml")
    with pytest.raises(UserError) as caught:
        parse(method, [str(path)], MODELS)
    assert f"{path}: the indentation is lost. algorithm in line 4 has nothing under it" in str(caught.value)
    assert "algorithm_type in line 5" in str(caught.value) and "two spaces a level" in str(caught.value)


# ---- meanings


def test_the_batch_is_that_of_all_processes(tmp_path):
    def rows(environment, *words):
        training = start(tmp_path, LEAST, "dpo", *words, environment=environment).training
        return training.per_device_train_batch_size, training.gradient_accumulation_steps

    four = {"PADDLE_TRAINERS_NUM": "4"}
    assert rows({}) == (1, 8) and rows(four) == (1, 2)
    assert rows({}, "--per_device_train_batch_size", "4") == (4, 2)
    assert rows(four, "--gradient_accumulation_steps", "1") == (2, 1)
    assert rows(four, "--tensor_parallel_degree", "2") == (1, 4)
    assert rows({}, "--per_device_train_batch_size", "3", "--gradient_accumulation_steps", "5") == (3, 5)
    said = refused(tmp_path, LEAST, environment={"PADDLE_TRAINERS_NUM": "3"})
    assert "a.yaml, line 7: buffer.train_batch_size 8: is the batch over all processes, and 3 processes" in said
    assert "a multiple of 3" in refused(tmp_path, LEAST, "dpo", "--per_device_train_batch_size", "3")


def test_beta_is_kl_coef_unless_the_loss_has_its_own(tmp_path):
    old = LEAST.replace("{algorithm_type: dpo}", "{algorithm_type: dpo, kl_loss_fn_args: {kl_coef: 0.2}}")
    new = old.replace("dpo, ", "dpo, policy_loss_fn_args: {beta: 0.4, label_smoothing: 0.1}, ")
    assert start(tmp_path, old).objective.beta == 0.2
    arguments = start(tmp_path, new)
    assert (arguments.objective.beta, arguments.objective.label_smoothing) == (0.4, 0.1)
    assert why(arguments, "algorithm.kl_loss_fn_args.kl_coef") == "algorithm.policy_loss_fn_args.beta is beta here, and wins"
    assert start(tmp_path, LEAST).objective.beta == 0.1
    assert start(tmp_path, new, "dpo", "--dpo_beta", "0.7").objective.beta == 0.7
    assert "the command line wins" in why(start(tmp_path, new, "dpo", "--beta", "0.7"), "algorithm.policy_loss_fn_args.beta")


@pytest.mark.parametrize(
    ("lengths", "whole", "prompt"),
    [
        ("max_model_len: 100", 100, 99),
        ("max_model_len: 100, max_prompt_tokens: 60", 100, 60),
        ("max_prompt_tokens: 60, max_response_tokens: 50", 110, 60),
        ("max_model_len: 100, max_response_tokens: 30", 100, 99),
    ],
)
def test_lengths(tmp_path, lengths, whole, prompt):
    data = start(tmp_path, LEAST.replace("max_model_len: 100", lengths)).data
    assert (data.max_length, data.src_length) == (whole, prompt)


def test_without_a_length_the_model_says_it(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    (model / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1e30}))
    text = LEAST.replace("{model_path: m, max_model_len: 100}", f"{{model_path: {model}}}")
    assert (start(tmp_path, text).data.max_length, start(tmp_path, text).data.src_length) == (512, 511)
    (model / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 300}))
    assert start(tmp_path, text).data.max_length == 300
    unknown = start(tmp_path, text.replace(str(model), "m"))
    assert unknown.sources["max_length"] == "default" and "--max_length sets it" in why(unknown, "model.max_model_len")


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("warmup_style: constant", ("constant", 0, 0.0)),
        ("lr_warmup_steps_ratio: 0.1", ("constant_with_warmup", 0, 0.1)),
        ("warmup_style: cosine, lr_warmup_steps: 7, min_lr_ratio: 0", ("cosine", 7, 0.0)),
        ("warmup_style: constant, min_lr_ratio: 0.1", ("constant", 0, 0.0)),
        ("warmup_style: cosine, min_lr_ratio: 0.1", ("cosine", 0, 0.0)),
    ],
)
def test_schedules(tmp_path, optimizer, expected):
    training = start(tmp_path, LEAST.replace("dpo}", f"dpo, optimizer: {{{optimizer}, lr: 3e-6, betas: [0.8, 0.9]}}}}")).training
    assert (training.lr_scheduler_type, training.warmup_steps, training.warmup_ratio) == expected
    assert (training.learning_rate, training.adam_beta1, training.adam_beta2, training.weight_decay) == (3e-6, 0.8, 0.9, 0.01)
    assert training.min_learning_rate == pytest.approx(3e-7 if "cosine, min_lr_ratio: 0.1" in optimizer else 0)


def test_what_verl_says(tmp_path):
    actor = "trainer: {trainer_config: {actor_rollout_ref: {actor: {%s}, model: {%s}}}}"
    config = actor % ("strategy: megatron, megatron: {tensor_model_parallel_size: 2}, grad_clip: 0.5", "lora_rank: 4, lora_alpha: 8")
    arguments = start(tmp_path, LEAST + config, environment={"PADDLE_TRAINERS_NUM": "2"})
    assert (arguments.parallel.tensor_parallel_degree, arguments.training.max_grad_norm) == (2, 0.5)
    assert (arguments.adapter.lora, arguments.adapter.lora_rank, arguments.adapter.lora_alpha) == (True, 4, 8)
    assert arguments.training.gradient_accumulation_steps == 8  # both processes read the same rows
    both = LEAST + (actor % ("grad_clip: 0.5", "")).replace("trainer: {", "trainer: {grad_clip: 0.7, ")
    assert start(tmp_path, both).training.max_grad_norm == 0.7
    assert "offload" in refused(tmp_path, LEAST + actor % ("fsdp_config: {param_offload: true}", ""))
    assert "read once an epoch" in refused(tmp_path, LEAST + actor % ("ppo_epochs: 2", ""))


def test_other_keys(tmp_path):
    arguments = start(tmp_path, f"{LEAST}trainer: {{total_steps: 20, save_interval: 0}}\nsynchronizer: {{sync_method: checkpoint}}\n")
    assert (arguments.training.max_steps, arguments.training.save_strategy) == (20, "no")
    assert "--bf16 true" in why(arguments, "the number format")
    assert "there is no explorer here" in why(arguments, "synchronizer.sync_method")
    arguments = start(tmp_path, LEAST, "dpo", "--num_train_epochs", "3", "--output_dir", "elsewhere")
    assert (arguments.training.num_train_epochs, arguments.training.output_dir) == (3, "elsewhere")


def test_columns_that_are_read_and_that_are_not(tmp_path):
    def form(text, algorithm="dpo"):
        return LEAST.replace("prompt_type: plaintext", text).replace("algorithm_type: dpo", f"algorithm_type: {algorithm}")

    assert "is read here" in why(
        start(tmp_path, form("prompt_type: chatpair, chosen_key: chosen")), "buffer.trainer_input.experience_buffer.format.chosen_key"
    )
    arguments = start(tmp_path, form("prompt_type: messages, messages_key: messages, enable_concatenated_multi_turn: true", "sft"), "sft")
    assert arguments.objective.score_turns == "all"
    assert "a template as text" in refused(tmp_path, form("prompt_type: plaintext, chat_template: '{{ x }}'"))
    kept = start(tmp_path, form("prompt_type: plaintext, chat_template: '{{ x }}'"), "dpo", "--chat_template", "a.jinja")
    assert kept.data.chat_template == "a.jinja"
    assert "Allowed: plaintext, messages, chatpair" in refused(tmp_path, form("prompt_type: html"))


def test_the_split_and_subset_of_a_data_set(tmp_path):
    text = LEAST.replace("path: rows\n", "path: rows\n      split: train_prefs\n      subset_name: en\n      storage_type: file\n")
    arguments = start(tmp_path, text)
    assert (arguments.rows.split, arguments.rows.subset, arguments.data.dataset_name_or_path) == ("train_prefs", ["en"], ["rows"])
    hub = start(
        tmp_path, LEAST.replace("path: rows", "path: HumanLLMs/Human-Like-DPO-Dataset").replace("model_path: m", "model_path: org/m")
    )
    assert (hub.model.model_name_or_path, hub.data.dataset_name_or_path) == ("org/m", ["HumanLLMs/Human-Like-DPO-Dataset"])


@pytest.mark.parametrize(
    ("algorithm", "form", "missing", "taken"),
    [
        (
            "dpo",
            "plaintext, prompt_key: question",
            'is the column "question"; the column that is read here is "prompt"',
            {"prompt_key": "question"},
        ),
        ("dpo", "chatpair, rejected_key: worse", 'is the column "worse"', {"rejected_key": "worse"}),
        ("sft", "messages", 'is the column "message"; the column that is read here is "messages"', {"messages_key": "message"}),
        ("sft", "plaintext", 'is the column "prompt"; the column that is read here is "src"', {}),
        ("sft", "plaintext, response_key: a, system_prompt_key: s", 'the column "a"', {"response_key": "a", "system_prompt_key": "s"}),
        ("dpo", "plaintext, system_prompt: Be kind", '"system": "..."', {"system_prompt": "Be kind"}),
    ],
)
def test_columns_go_to_our_keys_where_the_command_has_them(tmp_path, monkeypatch, algorithm, form, missing, taken):
    path = tmp_path / "a.yaml"
    path.write_text(
        LEAST.replace("prompt_type: plaintext", f"prompt_type: {form}").replace("algorithm_type: dpo", f"algorithm_type: {algorithm}")
    )
    setting = Setting(algorithm, 1, {}, {}, lambda folder: None)
    real = Reading.has
    ours = {"prompt_key", "response_key", "chosen_key", "rejected_key", "messages_key", "system_prompt_key", "system_prompt"}
    monkeypatch.setattr(Reading, "has", lambda self, key: key not in ours and real(self, key))
    assert missing in " ".join(read_yaml_configuration(path, setting).problems)
    monkeypatch.setattr(Reading, "has", lambda self, key: key in ours or real(self, key))
    reading = read_yaml_configuration(path, setting)
    assert not reading.problems
    assert {key: given.value for key, given in reading.keys.items() if key in ours} == taken


@pytest.mark.parametrize("name", ["trinity_dpo.yaml", "trinity_sft.yaml", "train_dpo.yaml"])
def test_any_value_of_any_key_is_read_or_refused(tmp_path, name):
    """Each leaf takes each kind of value: a reading, or one message."""
    odd_values = ["null", "[1, x]", "{a: 1}", "-1", "true", "1e400", "'a: b'", "${x.y}", "''"]
    refusals = []
    lines = document(tmp_path, name).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        key, colon, value = line.partition(":")
        if not colon or not value.strip() or key.lstrip().startswith("#"):
            continue
        for odd in odd_values:
            changed = [*lines[:number], f"{key}: {odd}", *lines[number + 1 :]]
            if name == "train_dpo.yaml":
                changed = [*LEAST.splitlines(), "trainer:", "  trainer_config:", *("    " + it for it in changed)]
            (tmp_path / "a.yaml").write_text("\n".join(changed))
            try:
                assert convert([str(tmp_path / "a.yaml")], MODELS).keys["do_train"]
            except UserError as error:
                refusals.append(str(error))
    assert len(refusals) > 50 and all(len(text) > 20 for text in refusals)


def test_the_pairs_of_a_dpo_file_train_a_reward_model_too(tmp_path):
    text = LEAST.replace("{algorithm_type: dpo}", "{algorithm_type: dpo, policy_loss_fn_args: {beta: 0.4, label_smoothing: 0.1}}")
    arguments = start(tmp_path, text, "reward")
    assert arguments.command == "reward" and arguments.training.gradient_accumulation_steps == 8
    assert why(arguments, "algorithm.policy_loss_fn_args.label_smoothing") == "of DPO's loss"
    assert convert([str(tmp_path / "a.yaml"), "--command", "reward"], {}).launch == "python reward_main.py ARGS.json"
    with pytest.raises(UserError, match="--command sft, but this is a configuration for dpo"):
        convert([str(tmp_path / "a.yaml"), "--command", "sft"], {})


# ---- refused, with file, line and the fix


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("mode: train", "mode: both", "line 2: mode both: is both, which has an explorer"),
        ("algorithm_type: dpo", "algorithm_type: grpo", "algorithm.algorithm_type grpo: is grpo, which is not here. Allowed: dpo, sft."),
        ("path: rows", "path: $NOT_SET/rows", "NOT_SET is not set in the environment. Set it (export NOT_SET=...)"),
        ("path: rows", "path: '${oc.env:NOT_SET}'", "NOT_SET is not set in the environment"),
        ("path: rows", "path: '${buffer.nothing}'", "it is no key of this file"),
        ("path: rows", "path: /PATH/TO/DATASET/", "this is the document's placeholder"),
        ("path: rows", "path: rows\n      storage_type: sql", "rows come from files here"),
        ("  train_batch_size: 8\n", "", "buffer.train_batch_size (their default): must be set"),
        ("train_batch_size: 8", "train_batch_size: many", "buffer.train_batch_size many: a whole number is needed"),
        ("train_batch_size: 8", "train_batch_sise: 8", "line 7: buffer.train_batch_sise: unknown key"),
        ("train_batch_size: 8", "train_batch_size: 8\n  total_epochs: two", "line 8: buffer.total_epochs: num_train_epochs"),
        ("dpo}", "dpo, optimizer: {betas: [0.9]}}", "two numbers are needed, [beta1, beta2]"),
        ("dpo}", "dpo, optimizer: {optimizer_type: sgd}}", "AdamW is the optimizer here"),
        ("dpo}", "dpo, entropy_loss_fn: default}", "no entropy term"),
        ("max_model_len: 100}", "max_model_len: 100, rope_thetta: 3}", "model.rope_thetta: unknown key"),
        ("{prompt_type: plaintext}", "{prompt_type: plaintext, prompt_keey: q}", "format.prompt_keey: unknown key"),
        (
            "mode: train",
            "mode: train\ntrainer: {trainer_config: {actor_rollout_ref: {actor: {optim: {lrr: 1}}}}}",
            "optim.lrr 1: unknown key",
        ),
        ("max_model_len: 100}", "max_model_len: 100, lora_configs: [{lora_rank: 8}]}", "Set --lora true"),
    ],
)
def test_refusals(tmp_path, old, new, said):
    message = refused(tmp_path, LEAST.replace(old, new))
    assert said in message
    assert "a.yaml, line " in message or "(their default)" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("- a\n- b\n", "this file is a sequence"),
        ("mode: train\nmode: both\n", "the key mode stands there twice (lines 1 and 2)"),
        ("mode: train\n\tbuffer: 1\n", "line 2, column 1: a tab"),
        ("mode: train\n  buffer: 1\n", "line 2, column 9: a colon where none can stand"),
        ("mode: &a train\nname: *a\n", "an alias (*a) is not read"),
        ("mode: train\n---\nmode: train\n", "a second document begins"),
        ("mode: [train\n", "this is no YAML"),
        ("? [a, b]\n: 1\n", "a key must be a plain word"),
        ("beta: 0.1\n", "no configuration that is known"),
        ("a: " + "[" * 1500 + "]" * 1500, "nested too deeply"),
    ],
)
def test_texts_that_are_no_configuration(tmp_path, text, said):
    assert said in refused(tmp_path, text)


def test_every_problem_comes_in_one_message(tmp_path):
    message = refused(tmp_path, LEAST.replace("path: rows", "path: $NOT_SET/x").replace("train_batch_size: 8", "train_batch_size: no"))
    assert message.startswith("2 problems") and "NOT_SET" in message and "train_batch_size no" in message


def test_another_method_and_other_commands(tmp_path):
    assert "start dpo_main.py with it" in refused(tmp_path, LEAST, "sft")
    assert "start sft_main.py with it" in refused(
        tmp_path, LEAST.replace("dpo", "sft").replace("plaintext", "messages, messages_key: messages")
    )
    assert "python -m paddlealign.convert" in refused(tmp_path, LEAST, "predict")
    assert "does not exist" in refused_missing(tmp_path)


def refused_missing(tmp_path: Path) -> str:
    with pytest.raises(UserError) as caught:
        parse("dpo", [str(tmp_path / "none.yaml")], {})
    return str(caught.value)


def test_a_trainer_file_that_is_not_there(tmp_path):
    path = document(tmp_path, "trinity_dpo.yaml")
    (tmp_path / "examples/dpo_humanlike/train_dpo.yaml").unlink()
    with pytest.raises(UserError, match=r"line 29: trainer.trainer_config_path: there is no file examples/dpo_humanlike/train_dpo.yaml"):
        parse("dpo", [str(path)], MODELS)


# ---- converted


def test_a_converted_file_is_what_a_start_reads(tmp_path):
    path = document(tmp_path, "trinity_dpo.yaml")
    found = convert([str(path), "--seed", "7"], {**MODELS, "PATH": "x"})
    assert (found.source, found.command) == ("Trinity-RFT", "dpo")
    assert found.launch == "python -u -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 dpo_main.py ARGS.json"
    assert found.keys["per_device_train_batch_size"] * found.keys["gradient_accumulation_steps"] * 8 == 64
    (tmp_path / "args.json").write_text(json.dumps(found.keys))
    environment = {**MODELS, "PADDLE_TRAINERS_NUM": "8"}
    converted, direct = parse("dpo", [str(tmp_path / "args.json")], environment), parse("dpo", [str(path), "--seed", "7"], environment)
    for section in ("model", "adapter", "data", "training", "parallel", "objective"):
        assert getattr(converted, section) == getattr(direct, section)
    one = convert([str(path), "--processes", "1"], MODELS)
    assert one.launch == "python dpo_main.py ARGS.json" and one.keys["gradient_accumulation_steps"] == 32
    several = path.read_text().replace("node_num: 1", "node_num: 2")
    path.write_text(several)
    assert "--nnodes 2 --master ADDRESS:PORT --rank 0" in convert([str(path)], MODELS).launch
