"""The argument files under scripts/llama and scripts/qwen: each is right in every key, fits its devices, and starts.

No model of 1.5B to 8B is here: plans read the real ones' config.json, and --check runs with a tiny model of the same architecture.
"""

import json
import os
import re
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.results import TrainArguments
from paddlealign.models.tensor_files import read_tensors, write_tensors
from paddlealign.recipes.entry import main
from scripts.recipes_page import CONFIGS, FILES, devices_of
from scripts.recipes_page import main as write_page
from scripts.recipes_page import model_of as trained_model
from scripts.sample.make_model import llama_shapes
from tests.distributed.launching import launch
from tests.small_runs import GOLDEN, ROOT, write_rows

# The real config.json with small numbers, and the tokenizer that stands for the real one.
TINY = {
    "llama2_7b": ("llama", {"num_attention_heads": 8, "num_key_value_heads": 8}),
    "llama3_8b": ("llama3", {"num_attention_heads": 8, "num_key_value_heads": 4}),
    "qwen2.5_1.5b": ("qwen2", {"num_attention_heads": 8, "num_key_value_heads": 2}),
}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512}
EVERY = sorted(path.relative_to(ROOT) for family in ("llama", "qwen") for path in (ROOT / "scripts" / family).glob("*/*"))
GENERIC = sorted(path.relative_to(ROOT) for path in (ROOT / "scripts/llama").glob("*_argument.json"))
STARTED = [path for path in (*EVERY, *GENERIC) if re.match("sft|reward|dpo", path.name)]
# What is said of a file for eight GPUs on one process of a CPU, and of the stand-ins for tokenizer and paths.
NOTES = re.compile(
    r"(tensor_|pipeline_|sharding).* for several processes|Devices under sharding read|bf16: Paddle has no bfloat16 kernels on CPU"
    r"|.* asks for [28] processes|dataset_name_or_path on the command line takes the place|the saved tokenizer pads with"
)


def command_of(path: Path) -> str:
    """The command that a file is for, by its name."""
    words = re.split(r"[_.]", path.name)
    return "_".join(words[:2]) if words[0] == "evaluate" else words[0]


def model_of(path: Path) -> str:
    """The model that a file is made for; those for any LLaMA are tried with LLaMA-3's."""
    return "llama3_8b" if path in GENERIC else trained_model(path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each architecture, and a few of the sample's rows."""
    home = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for name, (tokenizer, heads) in TINY.items():
        config = {**CONFIGS[name], **SIZES, **heads}
        shutil.copytree(GOLDEN / "tokenizers" / tokenizer, home / name)
        (home / name / "config.json").write_text(json.dumps(config))
        shapes = llama_shapes({**config, "head_dim": SIZES["hidden_size"] // heads["num_attention_heads"]})
        if config["model_type"] == "qwen2":
            shapes |= {f"{key.removesuffix('weight')}bias": shape[:1] for key, shape in shapes.items() if re.search("[qkv]_proj", key)}
        if not config["tie_word_embeddings"]:
            shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
        weights = {key: rng.normal(0, 0.02, shape).astype(ml_dtypes.bfloat16) + (len(shape) == 1) for key, shape in shapes.items()}
        write_tensors(home / name / "model.safetensors", {key: value.astype(ml_dtypes.bfloat16) for key, value in weights.items()})
    shutil.copytree(home / "llama3_8b", home / "reward")
    config = json.loads((home / "reward/config.json").read_text())
    (home / "reward/config.json").write_text(json.dumps({**config, "architectures": ["LlamaForSequenceClassification"], "num_labels": 1}))
    weights = {key: value for key, value in read_tensors(home / "reward/model.safetensors").items() if key != "lm_head.weight"}
    head = {"score.weight": rng.normal(0, 0.1, (1, SIZES["hidden_size"])).astype(ml_dtypes.bfloat16)}
    write_tensors(home / "reward/model.safetensors", {**weights, **head})
    for kind in ("sft", "dpo"):
        (home / kind).mkdir()
        for split, count in {"train": 128, "dev": 8}.items():
            write_rows(home / kind / f"{split}.json", kind, split, 0, count)
    lines = [json.loads(line) for line in (home / "sft/train.json").read_text().splitlines()]
    turns = [{"messages": [{"role": "user", "content": row["src"]}, {"role": "assistant", "content": row["tgt"]}]} for row in lines]
    (home / "messages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turns))
    return home


def places(path: Path, tiny: Path, output: Path) -> list[str]:
    """The paths of a file, and what a CPU must."""
    command = command_of(path)
    words = ["--model_name_or_path", str(tiny / model_of(path))]
    rows = tiny / ("messages.jsonl" if path.parent.name == "trinity" and command == "sft" else "sft" if command == "sft" else "dpo")
    return [*words, "--dataset_name_or_path", str(rows), "--output_dir", str(output / "run")]


def started(path: Path) -> dict[str, str]:
    return {"PADDLE_TRAINERS_NUM": str(devices_of(path))}


def test_there_is_a_file_for_each_method_and_layout():
    names = {str(path.relative_to("scripts")) for path in EVERY}
    for folder, layouts in {
        "llama/llama2_7b": ("tp4", "tp2_pp2"),
        "llama/llama3_8b": ("tp4", "tp2_pp2"),
        "qwen/qwen2.5_1.5b": ("tp2", "pp2"),
    }.items():
        for method in ("sft", "reward", "dpo"):
            assert {f"{folder}/{method}{layout}_argument.json" for layout in ("", *(f"_{it}" for it in layouts))} <= names
        assert f"{folder}/predict_argument.json" in names
    assert {f"qwen/trinity/{name}" for name in ("dpo.yaml", "sft.yaml", "dpo_argument.json", "sft_argument.json")} <= names


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_key_is_read_without_a_note_and_the_layout_is_that_of_the_name(path: Path):
    arguments = parse(command_of(path), [str(ROOT / path)], started(path))
    assert isinstance(arguments, TrainArguments) and arguments.notes == ()
    degrees = arguments.parallel
    named = {kind: int(degree) for kind, degree in re.findall(r"(tp|pp)(\d+)", path.name)}
    assert (degrees.tensor_parallel_degree, degrees.pipeline_parallel_degree) == (named.get("tp", 1), named.get("pp", 1))
    rows = arguments.training.per_device_train_batch_size * arguments.training.gradient_accumulation_steps
    assert rows * degrees.data_parallel_degree == 64
    assert (arguments.data.max_length == 8192) == ("8k" in path.name)


def test_each_fits_its_devices_as_the_page_says():
    assert write_page(ROOT / "docs/recipes.md", check=True) == 0


@pytest.mark.parametrize("path", STARTED, ids=str)
def test_it_starts(path: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    monkeypatch.chdir(ROOT)
    assert main(command_of(path), [str(path), *places(path, tiny, tmp_path), "--check"]) == 0, capfd.readouterr().err
    told = capfd.readouterr().out
    assert "check passed" in told and set(re.findall(r"left out ([\d,]*\d)", told)) <= {"0"}, told
    notes = [line for line in told.splitlines() if line.startswith("note: ")]
    print(path, notes)
    if command_of(path) == "dpo":
        assert "loss 0.6931" in told, told


@pytest.mark.parametrize("path", [path for path in (*EVERY, *GENERIC) if command_of(path) == "predict"], ids=str)
def test_it_answers(path: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    monkeypatch.chdir(ROOT)
    rows, answers = tmp_path / "rows.json", tmp_path / "answers.json"
    rows.write_text("\n".join((ROOT / "data/heldout.json").read_text(encoding="utf-8").splitlines()[:3]), encoding="utf-8")
    words = ["--data_file", str(rows), "--output_file", str(answers), "--max_length", "4"]
    assert main("predict", [str(path), "--model_name_or_path", str(tiny / model_of(path)), *words]) == 0, capfd.readouterr().err
    assert len(answers.read_text(encoding="utf-8").splitlines()) == 3
    assert "note: " not in capfd.readouterr().out


@pytest.mark.parametrize("task", ["evaluate_perplexity", "evaluate_compare", "evaluate_rewards", "evaluate_judge", "export"])
def test_what_comes_after_training_starts(
    task: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    monkeypatch.chdir(ROOT)
    model, reward, rows = tiny / "llama3_8b", tiny / "reward", tiny / "dpo/dev.json"
    for name in ("a", "b"):
        (tmp_path / name).write_text(json.dumps({"src": "What is 1 + 1?", "output": name}))
    words = {
        "evaluate_perplexity": ["--model_name_or_path", model, "--data_file", rows],
        "evaluate_compare": ["--model_name_or_path", model, "--baseline_model_name_or_path", model, "--data_file", rows],
        "evaluate_rewards": ["--model_name_or_path", reward, "--data_file", rows],
        "evaluate_judge": ["--reward_model_name_or_path", reward, "--answers_a", tmp_path / "a", "--answers_b", tmp_path / "b"],
        "export": ["--model_name_or_path", model, "--output_dir", tmp_path / "exported"],
    }[task]
    checked = [] if task == "export" else ["--output_file", tmp_path / "out.jsonl", "--check"]
    assert main(task, [f"scripts/llama/{task}_argument.json", *map(str, [*words, *checked])]) == 0, capfd.readouterr().err
    if task == "export":
        assert (tmp_path / "exported/config.json").is_file()


@pytest.mark.parametrize(
    ("path", "ranks"), [("qwen/qwen2.5_1.5b/dpo_tp2_argument.json", 2), ("qwen/qwen2.5_1.5b/sft_pp2_argument.json", 2)]
)
def test_it_starts_in_several_processes(path: str, ranks: int, tiny: Path, tmp_path: Path):
    file = Path("scripts") / path
    words = [f"{command_of(file)}_main.py", str(file), *places(file, tiny, tmp_path), "--check"]
    code, screen = launch(words, ranks, tmp_path / "log", 120)
    told = (tmp_path / "log/workerlog.0").read_text(encoding="utf-8")
    assert code == 0 and "check passed" in told, told + screen
    assert f"in the fullest of {ranks} processes" in told and ("0.6931" in told or "nats a token" in told)


@pytest.mark.parametrize("name", ["dpo", "sft"])
def test_the_yaml_says_what_the_json_says(name: str):
    folder = ROOT / "scripts/qwen/trinity"
    environment = started(Path("scripts/qwen/trinity") / f"{name}.yaml")
    ours = parse(name, [str(folder / f"{name}_argument.json")], environment)
    os.chdir(ROOT)
    theirs = parse(name, [str(folder / f"{name}.yaml"), "--bf16", "true", "--fp16_opt_level", "O2"], environment)
    for section, values in vars(ours).items():
        if section not in ("sources", "notes", "file", "told"):
            assert getattr(theirs, section) == values
