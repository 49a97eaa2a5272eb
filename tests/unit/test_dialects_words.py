"""Command lines and scripts of other trainers, and PaddleNLP's JSON, as argument files of ours."""

import json
import shlex
from pathlib import Path

import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.dialects import deepspeed_chat, dpo_paper
from paddlealign.arguments.dialects import reading as reading_module
from paddlealign.arguments.dialects.conversion import convert
from paddlealign.errors import UserError
from paddlealign.recipes.convert import main
from tests.unit.test_dialects_yaml import document

FILES = Path(__file__).parent / "dialect_files"
# The two commands of the document, word for word.
STAGE_1 = (
    "python -u train.py model=pythia28 datasets=[hh] loss=sft exp_name=my_experiment gradient_accumulation_steps=2 batch_size=64 "
    "eval_batch_size=32 trainer=FSDPTrainer sample_during_eval=false"
)
STAGE_2 = (
    "python -u train.py model=pythia28 datasets=[hh] loss=dpo loss.beta=0.1 exp_name=my_experiment gradient_accumulation_steps=2 "
    "batch_size=64 eval_batch_size=32 trainer=FSDPTrainer sample_during_eval=false model.archive=/path/to/sft/checkpoint/policy.pt"
)
DSC = "--data_path data/a --model_name_or_path m --output_dir o --data_path ./rows"


def converted(line: str, *ours: str, environment=None):
    """The Conversion of a command line; its keys are read again, as a start with the written file would."""
    return convert([*shlex.split(line), *ours], environment or {})


def filled(tmp_path: Path, line: str, *ours: str):
    found = converted(line, *ours)
    path = tmp_path / "args.json"
    path.write_text(json.dumps(found.keys), encoding="utf-8")
    return parse(found.command, [str(path)], {})


def refused(line: str, *ours: str) -> str:
    with pytest.raises(UserError) as caught:
        converted(line, *ours)
    return str(caught.value)


def why(found, theirs: str) -> str:
    return " | ".join(line.why for line in found.told if line.theirs == theirs)


# ---- the DPO paper's code


def test_the_first_stage_of_the_document(tmp_path):
    arguments = filled(tmp_path, STAGE_1.replace("[hh]", "[data/hh]"), "--model_name_or_path", "pythia")
    assert arguments.command == "sft" and arguments.model.model_name_or_path == "pythia"
    training, data = arguments.training, arguments.data
    assert training.output_dir == "output/my_experiment_sft"
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (32, 2)
    assert training.per_device_eval_batch_size == 32
    # what its config.yaml says without a word
    assert (training.learning_rate, training.lr_scheduler_type, training.warmup_steps) == (5e-7, "constant_with_warmup", 150)
    assert (training.max_grad_norm, training.seed, training.num_train_epochs) == (10, 0, 1)
    assert (data.max_length, data.src_length, data.chat_template) == (512, 256, "none")
    assert (training.evaluation_strategy, training.eval_steps, training.save_steps) == ("steps", 20_000 // 64, 20_000 // 64)


def test_its_named_data_sets_have_their_forms_here(tmp_path):
    sft = filled(tmp_path, STAGE_1, "--model_name_or_path", "pythia", "--dataset_name_or_path", "data/hh")
    assert (sft.rows.row_form, sft.data.dataset_name_or_path) == ("hh", ["data/hh"])
    se = converted(STAGE_1.replace("[hh]", "[se]"), "--model_name_or_path", "pythia", "--dataset_name_or_path", "data/se")
    assert se.keys["row_form"] == "stack_exchange"
    both = converted(STAGE_2.replace("[hh]", "[hh,se]"), "--dataset_name_or_path", "data/hh,data/se")
    assert both.keys["pairs"] == "all" and "row_form" not in both.keys
    assert "pairs" not in converted(STAGE_2, "--dataset_name_or_path", "data/hh").keys


def test_the_second_stage_of_the_document(tmp_path):
    found = converted(STAGE_2, "--dataset_name_or_path", "data/hh", "--processes", "8")
    assert found.command == "dpo" and found.source == "the DPO paper's code"
    assert found.keys["model_name_or_path"] == "/path/to/sft/checkpoint"
    assert (found.keys["beta"], found.keys["loss_type"]) == (0.1, "sigmoid")
    assert (found.keys["per_device_train_batch_size"], found.keys["gradient_accumulation_steps"]) == (4, 2)
    assert (found.keys["sharding"], found.keys["output_dir"]) == ("stage3", "output/my_experiment_dpo")
    assert "counts EXAMPLES" in why(found, "eval_every") and "AdamW" in why(found, "optimizer")
    assert found.launch == "python -u -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 dpo_main.py ARGS.json"
    assert filled(tmp_path, STAGE_2, "--dataset_name_or_path", "data/hh").data.truncation == "truncate_prompt"


def test_what_the_document_leaves_to_a_hub_is_asked_of_a_hub():
    found = converted(STAGE_1.replace("[hh]", "[hh,shp]"))
    assert found.keys["model_name_or_path"] == "EleutherAI/pythia-2.8b"
    assert found.keys["dataset_name_or_path"] == ["Anthropic/hh-rlhf", "stanfordnlp/SHP"]
    assert "FOLDER where it was downloaded" in why(found, "model") and "FOLDER where it was downloaded" in why(found, "datasets")
    given = converted(STAGE_1, "--model_name_or_path=pythia", "--train_dataset_path=rows.jsonl", "--dev_dataset_path=dev.jsonl").keys
    assert (given["model_name_or_path"], given["train_dataset_path"]) == ("pythia", ["rows.jsonl"]) and "dataset_name_or_path" not in given
    message = refused(STAGE_1.replace("pythia28", "gptj").replace("[hh]", "[hh,se]"))
    assert "model gptj: is EleutherAI/gpt-j-6b, of a family that is not here" in message
    assert "datasets hh,se: is fetched and cut to pieces there" in message and "--dataset_name_or_path FOLDER" in message
    assert "model odd: is not known. Add model.name_or_path=FOLDER." in refused(STAGE_1.replace("pythia28", "odd"))


BASE = "model.name_or_path=m datasets=[./rows] exp_name=x"


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("loss=ipo loss.beta=0.05", {"loss_type": "ipo", "ipo_average": "sum", "beta": 0.05}),
        ("loss=dpo loss.beta=1 loss.label_smoothing=0.2", {"label_smoothing": 0.2, "beta": 1.0}),
        ("loss=dpo loss.beta=1 loss.reference_free=true", {"reference_free": True}),
        ("batch_size=32 eval_every=100", {"eval_steps": 3, "save_steps": 3, "per_device_train_batch_size": 32}),
        ("n_examples=100 n_epochs=null batch_size=32", {"max_steps": 4}),
        ("optimizer=AdamW lr=1e-6 warmup_steps=0", {"weight_decay": 0.01, "learning_rate": 1e-6, "lr_scheduler_type": "constant"}),
        ("optimizer=Adam activation_checkpointing=true debug=true", {"recompute": True, "save_strategy": "no"}),
        ("model.fsdp_policy_mp=bfloat16", {"bf16": True}),
        ("model.policy_dtype=float16", {"fp16": True, "fp16_opt_level": "O2"}),
        ("max_length=1024 max_prompt_length=512 seed=3", {"max_length": 1024, "src_length": 512, "seed": 3}),
        ("datasets=[/a,/b] local_dirs=[/x,/y]", {"train_dataset_path": ["/a", "/b"], "output_dir": "/y/x_sft"}),
    ],
)
def test_its_other_keys(words, keys):
    base = " ".join(word for word in BASE.split() if word.split("=")[0] not in [other.split("=")[0] for other in words.split()])
    ours = ["--dev_dataset_path", "d.json"] if "/a,/b" in words else []
    found = converted(f"{base} {words}", *ours)
    assert {key: found.keys.get(key) for key in keys} == keys


def test_tensor_parallel_trainer():
    found = converted(f"{BASE} trainer=TensorParallelTrainer batch_size=8", "--processes", "4")
    assert (found.keys["tensor_parallel_degree"], found.keys["per_device_train_batch_size"]) == (4, 8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("loss=ppo", "loss ppo: is not known. Allowed: sft, dpo, ipo."),
        ("loss=dpo", "loss.beta (their default): is not set"),
        ("optimizer=RMSprop", "optimizer RMSprop: is not here. Set optimizer=AdamW."),
        ("do_first_eval=true", "nothing is evaluated before the first step"),
        ("n_eval_examples=64", "--dev_dataset_path"),
        ("batch_size=6 gradient_accumulation_steps=4", "batch_size 6: is the batch over all processes"),
        ("trainer=MagicTrainer", "Allowed: BasicTrainer, FSDPTrainer, TensorParallelTrainer"),
        ("learning_rate=1", "learning_rate: unknown key"),
        ("lr=1 lr=2", "lr stands there twice"),
        ("lr=fast", "lr fast: a number is needed"),
    ],
)
def test_what_it_asks_for_and_is_not_here(words, said):
    assert said in refused(f"{BASE} {words}")
    assert "every word is key=value" in refused(f"{BASE} we+ird$=1")


def test_the_config_that_it_leaves_beside_a_checkpoint(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "exp_name: x\nlr: 1e-06\nbatch_size: 8\ndatasets: [./rows]\n"
        "loss: {name: dpo, beta: 0.3, label_smoothing: 0, reference_free: false}\n"
        "model: {name_or_path: m, archive: null, policy_dtype: float32}\nwandb: {enabled: true}\nlocal_run_dir: /x\nn_epochs: 2\n"
    )
    found = converted(str(path))
    assert (found.command, found.keys["beta"], found.keys["learning_rate"], found.keys["num_train_epochs"]) == ("dpo", 0.3, 1e-6, 2)


def test_its_words_behind_our_command_are_told_what_reads_them():
    with pytest.raises(UserError, match="is in the style of the DPO paper's code"):
        parse("dpo", ["model=pythia28", "loss=dpo"], {})


# ---- DeepSpeed-Chat


def test_a_start_script_in_its_style(tmp_path):
    found = converted(str(FILES / "run_dpo_llama.sh"), "--processes", "2")
    assert found.command == "dpo" and found.source == "DeepSpeed-Chat"
    expected = {
        "model_name_or_path": "models/sft", "output_dir": "./output_dpo", "beta": 0.3, "learning_rate": 5e-6, "weight_decay": 0.1,
        "train_dataset_path": ["data/helpful-base/train.jsonl", "data/harmless-base/train.jsonl"],
        "dev_dataset_path": ["data/helpful-base/test.jsonl", "data/harmless-base/test.jsonl"],
        "max_length": 768, "src_length": 256, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "warmup_steps": 100,
        "lr_scheduler_type": "linear", "seed": 1234, "recompute": True, "sharding": "stage3", "logging_steps": 100, "adam_beta2": 0.95,
        "evaluation_strategy": "epoch", "save_strategy": "no", "chat_template": "none", "num_train_epochs": 1.0, "do_train": True,
        "per_device_eval_batch_size": 2,
    }  # fmt: skip
    assert found.keys == expected
    assert "all rows are this stage's" in why(found, "data_split") and "kept on disk" in why(found, "offload_reference_model")
    assert converted(str(FILES / "run_dpo_llama.sh"), environment={"OUTPUT": "from outside"}).keys["output_dir"] == "./output_dpo"


@pytest.mark.parametrize(
    ("words", "command", "keys"),
    [
        ("--data_split 1,0,0", "sft", {"learning_rate": 1e-3, "max_length": 512, "src_length": 511, "lr_scheduler_type": "cosine"}),
        ("--data_split 0,1,0", "reward", {"learning_rate": 5e-5}),
        ("--beta 0.2 --zero_stage 2", "dpo", {"beta": 0.2, "learning_rate": 9.65e-6}),
        ("--command sft --lr_scheduler_type constant --num_warmup_steps 10", "sft", {"lr_scheduler_type": "constant"}),
        ("--command sft --lora_dim 8 --only_optimize_lora", "sft", {"lora": True, "lora_rank": 8, "lora_alpha": 1.0}),
        ("--command sft --lora_dim 8 --only_optimize_lora --lora_learning_rate 1e-3", "sft", {"learning_rate": 1e-3}),
        ("--command sft --dtype bf16 --gradient_checkpointing --enable_tensorboard", "sft", {"bf16": True, "recompute": True}),
        ("--command sft --max_steps 5 --seed 9", "sft", {"max_steps": 5, "seed": 9}),
    ],
)
def test_its_flags(words, command, keys):
    found = converted(f"{DSC} {words}")
    assert found.command == command
    assert {key: found.keys.get(key) for key in keys} == keys


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "is this SFT or a reward model? Add --command sft or --command reward."),
        ("--beta 1 --offload", "offload true: weights and optimizer state stay on the devices"),
        ("--beta 1 --lora_dim 8", "Add --only_optimize_lora"),
        ("--beta 1 --unsupervised_dataset_name x", "no pretraining rows are mixed in"),
        ("--beta 1 --data_split 5,5,0", "leaves no rows to this stage (dpo)"),
        ("--beta 1 --data_split 5,0", "three shares are needed"),
        ("--beta 1 --zero_stage 4", "Allowed: 0, 1, 2, 3."),
        ("--beta 1 --lr_scheduler_type polynomial", "polynomial"),
        ("--beta 1 --strange 1", "strange: unknown key"),
        ("--beta 1 2", "--beta needs one value"),
        ("--beta", "--beta needs a value after it"),
        ("--command dpo --deepspeed_config x.json", "a DeepSpeed file is not read"),
    ],
)
def test_what_its_flags_ask_for_and_is_not_here(words, said):
    assert said in refused(f"{DSC} {words}")
    assert "--data_path" in refused(f"{DSC} --beta 1 --data_path Dahoas/rm-static") or "data_path" in refused(
        f"{DSC} --beta 1 --data_path x"
    )


def test_its_reward_model_scores_answers_where_the_run_evaluates():
    critic = f"{DSC} --beta 1 --critic_model_name_or_path r"
    assert converted(critic).keys["sample_reward_model"] == "r"
    alone = converted(f"{critic} --data_path ./a ./b").keys  # no dev rows
    assert "sample_during_eval" not in alone and "evaluation_strategy" not in alone
    prompts = converted(f"{critic} --data_path ./a ./b", "--sample_data_file", "prompts.jsonl").keys
    assert prompts["sample_during_eval"] is True


def test_the_stage_is_told_from_the_scripts_folder(tmp_path):
    folder = tmp_path / "step2_reward_model_finetuning"
    folder.mkdir()
    (folder / "run.sh").write_text('deepspeed main.py --data_path ./rows --model_name_or_path "m" --output_dir o > log\n')
    assert converted(str(folder / "run.sh")).command == "reward"
    (folder / "run.sh").write_text("echo nothing\n")
    assert "no training commands stand in it" in refused(str(folder / "run.sh"))
    (folder / "run.sh").write_text("python a.py --x 'y\n")
    assert "cannot be read" in refused(str(folder / "run.sh"))


def test_any_value_of_any_key_is_read_or_refused():
    found = {True: 0, False: 0}
    lines = [
        (f"{BASE} loss=dpo loss.beta=0.1", f" {key}=") for key in (*dpo_paper.DEFAULTS, *dpo_paper.RULES, "n_examples", "model.archive")
    ]
    lines += [(f"{DSC} --beta 1 --processes 3", f" --{key} ") for key in sorted(deepspeed_chat.KEYS)]
    for line, key in lines:
        for odd in ("[a,b]", "null", "-1", "true", "1e400"):
            try:
                found[bool(converted(f"{line}{key}{odd}").keys["do_train"])] += 1
            except UserError as error:
                found[False] += len(str(error)) > 20
    assert min(found.values()) > 50 and sum(found.values()) == 5 * len(lines)


# ---- keys that are ours where the command has them


def test_wishes_go_to_our_keys_as_soon_as_the_command_has_them(monkeypatch):
    """Keys of rows and samples: named here once, read where the dataclasses have them, refused with the way around where not."""
    ours = {"split", "subset", "data_split", "system_prompt", "row_form", "prompt_key", "sample_during_eval", "sample_reward_model"}
    real = reading_module.Reading.has
    for has in (lambda self, key: key in ours or real(self, key), lambda self, key: key not in ours and real(self, key)):
        monkeypatch.setattr(reading_module.Reading, "has", has)
        flags = reading_module.Setting("dpo", 1, {}, {}, lambda folder: None)
        words = shlex.split("--data_path ./rows --model_name_or_path m --data_split 5,0,5 --critic_model_name_or_path r --beta 1")
        chat = deepspeed_chat.read_deepspeed_chat(deepspeed_chat.flags_as_entries(words), flags)
        paper = dpo_paper.read_dpo_paper(
            dpo_paper.words_as_entries(shlex.split("datasets=[se] sample_during_eval=true model.name_or_path=m exp_name=x")), flags
        )
        if has(chat, "data_split"):
            assert chat.keys["data_split"].value == "5,0,5" and chat.keys["sample_reward_model"].value == "r" and not chat.problems
            assert "Download it, and add" in paper.problems[0] and paper.keys["sample_during_eval"].value is True
            assert len(paper.problems) == 1  # the rows themselves
        else:
            assert len(chat.problems) == 2 and "to a file of its own" in chat.problems[0]
            assert len(paper.problems) == 2 and "run predict.py" in " ".join(paper.problems)


# ---- PaddleNLP


def test_paddlenlp_files_of_every_age(tmp_path):
    old = tmp_path / "old.json"
    old.write_text(json.dumps({
        "model_name_or_path": "m", "train_dataset_path": "t", "dev_dataset_path": "d", "output_dir": "o", "dpo_beta": 0.2,
        "max_seq_len": 4096, "dpo_loss_type": "sigmoid", "use_attn_mask_start_row_indices": True, "dpo_benchmark": False,
        "do_train": True, "seed": None,
    }))  # fmt: skip
    found = converted(str(old))
    assert found.command == "dpo" and found.source == "PaddleNLP"
    assert found.keys == {
        "model_name_or_path": "m", "train_dataset_path": ["t"], "dev_dataset_path": ["d"], "output_dir": "o", "beta": 0.2,
        "max_length": 4096, "loss_type": "sigmoid", "do_train": True,
    }  # fmt: skip
    assert "ONE answer" in why(found, "max_seq_len") and "row indices" in why(found, "use_attn_mask_start_row_indices")
    assert why(found, "dpo_benchmark") == "asks for nothing"
    assert why(found, "seed") == "empty: the default stands"
    old.write_text(json.dumps({"model_name_or_path": "m", "train_dataset_path": "t", "output_dir": "o", "do_train": True, "pissa": True}))
    assert "Add --command sft, --command reward or --command dpo" in refused(str(old))
    old.write_text(json.dumps({"model_name_or_path": "m", "beta": 0.1, "dpo_beta": 0.2, "output_dir": "o"}))
    assert "dpo_beta and beta are the same key here" in refused(str(old))
    old.write_text(json.dumps({"model_name_or_path": "m", "train_dataset_path": "t", "output_dir": "o", "do_train": True, "pissa": True}))
    assert "an adapter starts from zero here" in refused(str(old), "--command", "dpo")


@pytest.mark.parametrize("name", ["sft_argument", "dpo_argument", "reward_argument"])
def test_our_own_files_stay_what_they_are(name):
    path = Path(__file__).resolve().parents[2] / "scripts/llama" / f"{name}.json"
    found = converted(str(path), "--command", name.split("_")[0])
    for key, value in json.loads(path.read_text()).items():
        assert found.keys[key] in (value, [value])


# ---- the command


def test_the_command_writes_and_shows(tmp_path, capsys):
    output = tmp_path / "new/args.json"
    assert main([*shlex.split(f"{BASE} loss=dpo loss.beta=0.1"), "-o", str(output)]) == 0
    shown = capsys.readouterr().out
    assert json.loads(output.read_text())["beta"] == 0.1
    for text in ("their key", "loss.beta", "(ignored)", f"written: {output}", f"start: python dpo_main.py {output}"):
        assert text in shown
    assert main([*shlex.split(f"{BASE} loss=dpo loss.beta=0.1"), "-o", str(output)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["--help"]) == 0 and "usage: python -m paddlealign.convert" in capsys.readouterr().out
    assert main(shlex.split(f"{BASE} batch_size=8")) == 0 and "nothing is written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "a file or flags of another tool are needed"),
        ("a.json --from gpt", "--from gpt is not known; allowed: trinity, dpo-paper"),
        ("a.json -o", "-o needs a value after it"),
        ("lr=1 --processes none", "--processes none is not allowed"),
        (f"{DSC} --beta 1 --from trinity", "this is a configuration of DeepSpeed-Chat"),
        (f"{BASE} --from trinity", "this is a configuration of the DPO paper's code"),
        ("missing.json", "does not exist"),
        (f"{BASE} --beta", "--beta needs a value"),
    ],
)
def test_mistakes_on_its_command_line(words, said, capsys):
    assert main(shlex.split(words)) == 1
    assert said in capsys.readouterr().err


# ---- the pages


def test_the_pages_name_every_key_that_becomes_ours(tmp_path):
    docs = Path(__file__).resolve().parents[2] / "docs"
    environment = {"MODEL_PATH": "m", "DATASET_PATH": "d"}
    found = {
        "trinity_rft": convert([str(document(tmp_path, "trinity_dpo.yaml"))], environment).told
        + convert([str(document(tmp_path, "trinity_sft.yaml"))], environment).told,
        "dpo_paper": converted(STAGE_2, "--dataset_name_or_path", "data/hh", "--processes", "8").told,
        "deepspeed_chat": converted(str(FILES / "run_dpo_llama.sh"), "--processes", "2").told,
    }
    for name, told in found.items():
        page = (docs / f"from_{name}.md").read_text(encoding="utf-8")
        missing = {line.theirs for line in told if line.ours and " " not in line.theirs}
        missing = {key for key in missing if key.split(".")[-1] not in page and key != "adam_beta2"}
        assert not missing, name
