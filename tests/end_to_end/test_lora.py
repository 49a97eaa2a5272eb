"""LoRA through the commands: trained, resumed, computed with, merged and verified, and as the start of another run."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from paddlealign.models.linear import Linear
from paddlealign.models.tensor_files import read_tensors, write_tensors
from paddlealign.models.weights import find_weights
from paddlealign.recipes import merging
from paddlealign.recipes.entry import main
from tests.small_runs import CHARACTERS, character_checkpoint

WEIGHTS, SCORE = "adapter_model.safetensors", "base_model.model.score.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaMA, and beside it rows for SFT, DPO and prediction."""
    folder = tmp_path_factory.mktemp("lora")
    rng = np.random.default_rng(5)

    def text() -> str:
        return "".join(rng.choice(list(CHARACTERS[1:80]), rng.integers(3, 12)))

    rows = [{"src": text(), "tgt": text()} for _ in range(12)]
    pairs = [{"prompt": text(), "chosen": text(), "rejected": text()} for _ in range(8)]
    for name, lines in (("sft.jsonl", rows), ("dpo.jsonl", pairs), ("reward.jsonl", pairs), ("prompts.jsonl", rows[:3])):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return character_checkpoint(folder / "base")


def train(command: str, base: Path, output: Path, *extra: object) -> int:
    words = {
        "model_name_or_path": base, "dataset_name_or_path": base.parent / f"{command}.jsonl", "output_dir": output, "do_train": True,
        "max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 2, "disable_tqdm": True, "device": "cpu",
        "learning_rate": 2e-2, "lora": True, "src_length": 32, "max_length": 64,
    }  # fmt: skip
    return main(command, [*(f"--{key}={value}" for key, value in words.items()), *map(str, extra)])  # type: ignore[arg-type]


def losses(output: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tuned(base: Path) -> Path:
    """An SFT run with dropout."""
    assert train("sft", base, base.parent / "sft", "--lora_dropout", 0.1) == 0
    return base.parent / "sft"


@pytest.fixture(scope="module")
def scorer(base: Path) -> Path:
    """A reward model's run with dropout."""
    assert train("reward", base, base.parent / "reward", "--lora_dropout", 0.1) == 0
    return base.parent / "reward"


def test_what_is_left_is_the_adapter(base: Path, tuned: Path) -> None:
    for folder in (tuned, tuned / "checkpoint-2"):
        names = {path.name for path in folder.iterdir()}
        assert {"adapter_config.json", WEIGHTS, "tokenizer.json"} <= names and not names & {"config.json", "model.safetensors"}
    told = json.loads((tuned / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(base) and (told["r"], told["lora_alpha"], told["lora_dropout"]) == (8, 16, 0.1)
    adapter = read_tensors(tuned / WEIGHTS)
    optimizer = read_tensors(tuned / "checkpoint-4" / "optimizer.safetensors")
    assert len(adapter) == 28 and len(optimizer) == 2 * 28 + 2
    assert adapter["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"].shape == (32, 8)


def test_of_a_reward_model_the_head_is_left_too(base: Path, scorer: Path) -> None:
    told, adapter = json.loads((scorer / "adapter_config.json").read_text()), read_tensors(scorer / WEIGHTS)
    assert (told["task_type"], told["modules_to_save"]) == ("SEQ_CLS", ["classifier", "score"])
    assert len(adapter) == 29 and adapter[SCORE].shape == (1, 32) and not (scorer / "config.json").exists()
    optimizer = read_tensors(scorer / "checkpoint-4" / "optimizer.safetensors")
    assert optimizer["score.weight.moment2"].all() and len(optimizer) == 2 * 29 + 2
    assert np.abs(adapter[SCORE] - read_tensors(scorer / "checkpoint-2" / WEIGHTS)[SCORE]).mean() > 1e-3
    assert losses(scorer)[-1] < 0.5 * losses(scorer)[0]
    assert json.loads((scorer / "tokenizer_config.json").read_text())["pad_token"] == "<unk>"


@pytest.mark.parametrize("command", ["sft", "reward"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(base: Path, tuned: Path, scorer: Path, command: str, tmp_path: Path) -> None:
    whole = {"sft": tuned, "reward": scorer}[command]
    again = shutil.copytree(whole, tmp_path / "again")
    shutil.rmtree(again / "checkpoint-4")
    assert train(command, base, again, "--lora_dropout", 0.1, "--resume_from_checkpoint", "true") == 0
    for name in (WEIGHTS, "checkpoint-4/optimizer.safetensors"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("command", ["sft", "reward"])
def test_a_resume_beside_another_base_is_refused(
    base: Path, tuned: Path, scorer: Path, command: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole = {"sft": tuned, "reward": scorer}[command]
    other, again = shutil.copytree(base, tmp_path / "base"), shutil.copytree(whole, tmp_path / "again")
    tensors = read_tensors(other / "model.safetensors")
    write_tensors(other / "model.safetensors", {**tensors, "model.norm.weight": tensors["model.norm.weight"] + 1}, {"format": "pt"})
    shutil.copy(base.parent / f"{command}.jsonl", tmp_path)
    assert train(command, other, again, "--lora_dropout", 0.1, "--resume_from_checkpoint", "true") == 1
    assert "sha256 of the base weights was" in capsys.readouterr().err


def test_a_resume_from_another_start_adapter_is_refused(base: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The checkpoint has the adapter's values, the start adapter its scale: another one's would change what they mean."""
    output, other = tmp_path / "out", shutil.copytree(tuned, tmp_path / "other")
    assert train("sft", base, output, "--lora_path", tuned, "--max_steps", 3) == 0
    told = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**told, "lora_alpha": 800}))
    capsys.readouterr()
    assert train("sft", base, output, "--lora_path", other, "--resume_from_checkpoint", "true") == 1
    assert "sha256 of the start adapter was" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--lora_rank", 4],
        ["--lora_alpha", 4],
        ["--lora_dropout", 0.5],
        ["--lora_target_modules", "q_proj,v_proj"],
        ["--rslora", "true"],
        ["--lora_plus_scale", 8],
        ["--rslora_plus", "true"],
        ["--lora_path", "sft"],
        ["--lora", "false"],
    ],
    ids=lambda words: words[0],
)
def test_each_key_changes_the_run(base: Path, tuned: Path, tmp_path: Path, words: list) -> None:
    extra = ["--lora_dropout", 0.1, *(tuned if word == "sft" else word for word in words), "--save_strategy", "no"]
    assert train("sft", base, tmp_path / "out", *extra) == 0
    # the scale meets lora_B, which is zero in the first step and moved by it
    assert np.abs(np.array(losses(tmp_path / "out")) - losses(tuned))[1:].max() > 1e-4


def test_an_adapter_off_is_the_frozen_copy_and_the_cache(base: Path, tmp_path: Path) -> None:
    ways = {
        "off": ["--reference_mode", "frozen"],
        "copy": ["--reference_mode", "frozen", "--ref_model_name_or_path", shutil.copytree(base, tmp_path / "base")],
        "cached": [],
    }
    for name, words in ways.items():
        assert train("dpo", base, tmp_path / name, *words, "--save_strategy", "no") == 0
    found = {name: np.array(losses(tmp_path / name)) for name in ways}
    assert found["off"][0] == pytest.approx(np.log(2), abs=1e-6) and found["off"][-1] < found["off"][0] - 0.01
    assert np.array_equal(found["off"], found["copy"])
    np.testing.assert_allclose(found["cached"], found["off"], rtol=1e-5)
    assert np.array_equal(*(read_tensors(tmp_path / name / WEIGHTS)[KEY] for name in ("off", "copy")))


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


def test_from_an_adapter_the_reference_is_that_adapter(base: Path, tuned: Path, tmp_path: Path) -> None:
    ways = {"start": ["--reference_mode", "frozen"], "cached": [], "base": ["--ref_model_name_or_path", base]}
    for name, words in ways.items():
        assert train("dpo", base, tmp_path / name, "--lora_path", tuned, *words, "--save_strategy", "no") == 0
    found = {name: np.array(losses(tmp_path / name)) for name in ways}
    assert found["start"][0] == pytest.approx(np.log(2), abs=1e-6)
    np.testing.assert_allclose(found["cached"], found["start"], rtol=1e-5)
    assert abs(found["base"][0] - np.log(2)) > 1e-3


def strong(tuned: Path, folder: Path) -> Path:
    """The adapter, much stronger."""
    shutil.copytree(tuned, folder, ignore=shutil.ignore_patterns("checkpoint-*", "run.json"))
    write_tensors(folder / WEIGHTS, {name: array * 6 for name, array in read_tensors(tuned / WEIGHTS).items()}, {"format": "pt"})
    return folder


def test_export_merges_and_predict_answers_alike(base: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    adapter = strong(tuned, tmp_path / "adapter")
    words = ["--model_name_or_path", base, "--lora_path", adapter, "--output_dir", tmp_path / "merged"]
    assert main("export", list(map(str, words))) == 0
    assert "verified: " in capsys.readouterr().out
    answers = {}
    for name, model in (("apart", [base, "--lora_path", adapter]), ("merged", [tmp_path / "merged"]), ("base", [base])):
        asked = ["--model_name_or_path", *model, "--data_file", base.parent / "prompts.jsonl", "--output_file", tmp_path / f"{name}.json"]
        assert main("predict", [*map(str, asked), "--max_length=8", "--decode_strategy=greedy_search", "--device=cpu"]) == 0
        answers[name] = (tmp_path / f"{name}.json").read_text()
    assert answers["apart"] == answers["merged"] != answers["base"]


def test_the_template_of_training_goes_with_the_adapter(base: Path, tmp_path: Path) -> None:
    """What was trained with is what predicts, apart and merged, and what training goes on with."""
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}<{{ m.content }}>{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}", "utf-8")
    output = tmp_path / "adapter"
    assert train("sft", base, output, "--chat_template", template, "--save_strategy", "no") == 0
    assert main("export", ["--model_name_or_path", str(base), "--lora_path", str(output), "--output_dir", str(tmp_path / "merged")]) == 0
    assert (tmp_path / "merged" / "chat_template.jinja").read_bytes() == template.read_bytes()
    written = {name: (output / name).read_bytes() for name in ("generation_config.json",) if (output / name).is_file()}
    assert all((tmp_path / "merged" / name).read_bytes() == content for name, content in written.items())
    prompts = {}
    for name, words in {"with": ["--lora_path", output], "without": ["--lora_path", output, "--tokenizer_name_or_path", base]}.items():
        asked = ["--data_file", base.parent / "prompts.jsonl", "--check", *words]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main("predict", ["--model_name_or_path", str(base), *map(str, asked)]) == 0
        prompts[name] = said.getvalue().splitlines()[-1]
    assert prompts["with"].startswith("<s><") and not prompts["without"].startswith("<s><")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert train("sft", base, tmp_path / "on", "--lora_path", output, "--check", "true") == 0
    assert "tokens): <s><" in said.getvalue()


def scores(base: Path, output: Path, *model: object) -> np.ndarray:
    """What evaluate.py rewards gives the pairs: [pairs, 2]."""
    words = ["--model_name_or_path", *model, "--data_file", base.parent / "reward.jsonl", "--output_file", output, "--device=cpu"]
    assert main("evaluate_rewards", list(map(str, words))) == 0
    return np.array([[row["chosen_score"], row["rejected_score"]] for row in map(json.loads, output.read_text().splitlines())])


def test_a_merged_reward_model_scores_alike(base: Path, scorer: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main("export", list(map(str, ["--model_name_or_path", base, "--lora_path", scorer, "--output_dir", tmp_path / "merged"]))) == 0
    assert "its rewards differ from those of base and adapter by" in capsys.readouterr().out
    told = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert (told["architectures"], told["pad_token_id"]) == (["LlamaForSequenceClassification"], 0)
    assert json.loads((tmp_path / "merged" / "tokenizer_config.json").read_text())["pad_token"] == "<unk>"
    apart = scores(base, tmp_path / "apart.jsonl", base, "--lora_path", scorer)
    assert np.abs(apart - scores(base, tmp_path / "merged.jsonl", tmp_path / "merged")).max() <= 5e-6
    # Beside the merged model the adapter is at work twice, under its own head.
    assert np.abs(apart - scores(base, tmp_path / "twice.jsonl", tmp_path / "merged", "--lora_path", scorer)).max() > 0.1


@pytest.mark.parametrize("start", ["reward", "sft"])
def test_a_reward_model_starts_from_an_adapter_with_a_head_or_without(
    base: Path, tuned: Path, scorer: Path, start: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """After a step of a small rate the adapter is still nearly that of lora_path; its head, or a new one."""
    folder = {"reward": scorer, "sft": tuned}[start]
    words = ["--lora_path", folder, "--learning_rate", "1e-4", "--max_steps", 1, "--save_strategy", "no"]
    assert train("reward", base, tmp_path / "out", *words) == 0
    assert ("score head: new" in capsys.readouterr().out) == (start == "sft")
    before, after = read_tensors(folder / WEIGHTS), read_tensors(tmp_path / "out" / WEIGHTS)
    assert after.keys() == before.keys() | {SCORE}
    assert all(np.abs(after[name] - before[name]).max() < 2e-4 for name in before)
    assert np.abs(after[SCORE]).max() > 0.1
    if start == "reward":
        assert losses(tmp_path / "out")[0] < 0.5 * losses(scorer)[0]


def test_an_adapter_with_the_other_head_is_refused(base: Path, tuned: Path, scorer: Path, tmp_path: Path, capsys) -> None:
    for command in ("sft", "dpo"):
        assert train(command, base, tmp_path / "out", "--lora_path", scorer) == 1
        assert "this adapter is a reward model's" in capsys.readouterr().err
    model = ["--model_name_or_path", str(base), "--data_file", str(base.parent / "prompts.jsonl")]
    assert main("predict", [*model, "--lora_path", str(scorer), "--output_file", str(tmp_path / "out.json")]) == 1
    assert "this adapter is a reward model's" in capsys.readouterr().err
    assert main("evaluate_rewards", [*model, "--lora_path", str(tuned), "--output_file", str(tmp_path / "out.json")]) == 1
    assert "this is a language model (LlamaForCausalLM), which has no score head" in capsys.readouterr().err


def test_export_in_another_dtype_and_in_shards(base: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--model_name_or_path", base, "--lora_path", tuned, "--output_dir", tmp_path / "out", "--dtype=bfloat16"]
    assert main("export", [*map(str, words), "--max_shard_size=20KB"]) == 0
    assert "which is the rounding to bfloat16" in capsys.readouterr().out
    paths = set(find_weights(tmp_path / "out").values())
    assert len(paths) > 1 and {str(it.dtype) for path in paths for it in read_tensors(path).values()} == {"bfloat16"}


def test_a_merge_that_was_written_wrong_is_refused(
    base: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = ["--model_name_or_path", base, "--lora_path", tuned, "--output_dir"]
    load = merging.load_weights

    def damaged(model, directory) -> None:
        load(model, directory)
        weight = model.model.layers["1"].mlp.up_proj.weight
        weight.set_value(weight * 1.01)

    monkeypatch.setattr(merging, "load_weights", damaged)
    assert main("export", [*map(str, words), str(tmp_path / "written")]) == 1
    assert "does not compute what base and adapter do" in capsys.readouterr().err
    monkeypatch.setattr(merging, "merge", lambda model: [it.stand_beside(None, None) for it in model.sublayers() if isinstance(it, Linear)])
    assert main("export", [*map(str, words), str(tmp_path / "unmerged")]) == 1
    assert "before they were written" in capsys.readouterr().err and not (tmp_path / "unmerged").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--lora_path", "nowhere"], "lora_path: there is no folder nowhere"),
        (["--lora_path", "BASE"], "holds no adapter_config.json"),
        (["--lora_path", "ADAPTER", "--lora_rank", "4"], "lora_rank 4 (8 there)"),
        (["--lora_path", "ADAPTER", "--lora", "false"], "lora_path without lora"),
        (["--lora_path", "ADAPTER", "--rslora_plus", "true"], "rslora_plus with lora_path"),
        (["--lora_target_modules", "q_proj,c_attn"], "c_attn: no linear module of this model's layers; there are q_proj"),
        (["--model_name_or_path", "ADAPTER"], "Give the base model here, and this folder as lora_path"),
    ],
)
def test_mistakes_are_told(base: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], told: str) -> None:
    replaced = [{"BASE": str(base), "ADAPTER": str(tuned)}.get(word, word) for word in words]
    assert train("sft", base, tmp_path / "out", *replaced) == 1
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error and not (tmp_path / "out").exists()


def test_a_full_run_in_an_adapters_folder_leaves_no_adapter_and_the_other_way_round(base: Path, tuned: Path, tmp_path: Path) -> None:
    output = shutil.copytree(tuned, tmp_path / "out")
    for lora, here, gone in (("false", "model.safetensors", WEIGHTS), ("true", WEIGHTS, "config.json")):
        assert train("sft", base, output, "--lora", lora, "--overwrite_output_dir", "true", "--save_strategy", "no") == 0
        assert (output / here).exists() and not (output / gone).exists()


def test_check_counts_the_adapter_only(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    told = {}
    for lora in ("true", "false"):
        assert train("sft", base, tmp_path / "out", "--check", "true", "--lora", lora) == 0
        told[lora] = capsys.readouterr().out
    assert "  adapter    7,552 of" in told["true"] and "check passed" in told["true"] and "  adapter " not in told["false"]
