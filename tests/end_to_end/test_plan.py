"""``python -m paddlealign.plan``: a training file and so many devices in, layouts out; mistakes told; docs/parallel.md held to it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from paddlealign.recipes.entry import main
from scripts.plan_page import main as write_page
from scripts.plan_page import write_config
from tests.small_runs import ROOT


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config.json and no weights."""
    return write_config(tmp_path_factory.mktemp("models"), "7B")


def plan(capsys: pytest.CaptureFixture, kind: str, model: Path, *words: object) -> tuple[int, str]:
    """Run the command on scripts/llama/<kind>_argument.json; its exit code and all that it said."""
    argv = [str(ROOT / "scripts" / "llama" / f"{kind}_argument.json"), "--model_name_or_path", model, *words]
    code = main("plan", [str(word) for word in argv])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_command_finds_layouts_and_writes_them_for_programs(llama: Path, tmp_path: Path):
    """As a user starts it, through a pipe: no colour, no terminal, lines that are whole."""
    file = tmp_path / "plans.json"
    words = ["scripts/llama/sft_argument.json", "--model_name_or_path", llama, "--devices", 8, "--rows_per_step", 64, "--json", file]
    command = [sys.executable, "-m", "paddlealign.plan", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "6,738,415,616 parameters" in done.stdout and "8 of 80 GiB, 8 left free; 8 a machine" in done.stdout
    assert "312 TFLOP/s, 40% reached" in done.stdout and "\x1b" not in done.stdout and "…" not in done.stdout
    assert "data parallel alone" in done.stdout and "GiB too much" in done.stdout
    written = json.loads(file.read_text())
    assert written["rows_per_step"] == 64 and 1 < len(written["plans"]) <= 5
    seconds = [it["seconds"]["step"] for it in written["plans"]]
    assert seconds == sorted(seconds)
    for it in written["plans"]:
        keys = it["keys"]
        degrees = keys["tensor_parallel_degree"] * keys["pipeline_parallel_degree"] * keys["data_parallel_degree"]
        rows = keys["per_device_train_batch_size"] * keys["gradient_accumulation_steps"] * keys["data_parallel_degree"]
        assert (degrees, rows, it["fits"]) == (8, 64, True)
        parts = ("weights", "optimizer", "gradients", "activations", "head", "reference")
        assert sum(it["memory_bytes"][name] for name in parts) == pytest.approx(it["memory_bytes"]["total"])
        assert it["memory_bytes"]["total"] <= 72 * 2**30


def test_the_keys_that_a_plan_names_give_that_plan(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    file, again = tmp_path / "plans.json", tmp_path / "again.json"
    assert plan(capsys, "dpo", llama, "--devices", 8, "--json", file)[0] == 0
    for found in json.loads(file.read_text())["plans"]:
        words = [f"--{key}={value}" for key, value in found["keys"].items()]
        code, said = plan(capsys, "dpo", llama, "--devices", 8, "--json", again, *words)
        assert code == 0 and "simple layouts" not in said, said
        assert json.loads(again.read_text())["plans"] == [found]


def test_a_layout_that_is_set_is_told_in_full(llama: Path, capsys: pytest.CaptureFixture):
    words = ["--devices", 16, "--tensor_parallel_degree", 2, "--pipeline_parallel_degree", 4, "--sharding", "stage1"]
    code, said = plan(capsys, "dpo", llama, *words, "--reference_mode", "frozen", "--sequence_parallel", "true")
    assert code == 0
    assert "DPO, reference frozen, bfloat16 O2; 16 rows a step" in said and "rows of 8,192 tokens (2 x max_length)" in said
    assert "DPO, no reference, " in plan(capsys, "dpo", llama, *words, "--reference_mode", "frozen", "--loss_type", "simpo")[1]
    assert "stage1 of 2" in said and "8 of 1" in said and "27%" in said  # a bubble of 3 / 11
    assert "pipeline: hidden states" in said and "data: new weights to all" in said and "1 of 4" in said
    code, said = plan(capsys, "sft", llama, "--devices", 1, "--data_parallel_degree", 1, "--search", "true")
    assert code == 0 and "none fits. Least is held by this one" in said


def test_what_the_keys_change(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Every key of the plan has an effect on what is planned."""
    file = tmp_path / "plans.json"

    def planned(*words: object) -> dict:
        assert plan(capsys, "sft", llama, "--devices", 8, "--sharding", "stage2", "--json", file, *words)[0] == 0
        content = json.loads(file.read_text())
        return {**content["plans"][0], "rows_per_step": content["rows_per_step"]}

    plain = planned()
    assert plain["fits"] and not planned("--device_memory_gib", 40)["fits"] and not planned("--reserve_gib", 50)["fits"]
    compute, traffic = plain["seconds"]["compute"], plain["seconds"]["traffic"]
    assert planned("--device_tflops", 156)["seconds"]["compute"] == pytest.approx(2 * compute)
    assert planned("--achieved_share", 0.8)["seconds"]["compute"] == pytest.approx(compute / 2)
    assert planned("--intra_node_gbs", 100)["seconds"]["traffic"] == pytest.approx(2 * traffic)
    apart = planned("--devices_per_node", 1)["seconds"]["traffic"]
    assert apart == pytest.approx(10 * traffic)
    assert planned("--devices_per_node", 1, "--inter_node_gbs", 10)["seconds"]["traffic"] == pytest.approx(2 * apart)
    assert planned("--rows_per_step", 64)["keys"]["gradient_accumulation_steps"] == 8
    short = planned("--tokens_per_row", 512)
    assert short["seconds"]["compute"] < compute / 3.9 and short["memory_bytes"] == plain["memory_bytes"]
    assert planned("--scored_share", 0.5)["seconds"]["compute"] < compute
    assert planned("--method", "dpo")["memory_bytes"]["activations"] > plain["memory_bytes"]["activations"]
    assert planned("--method", "reward")["memory_bytes"] == planned("--center_rewards_coefficient", 0.01)["memory_bytes"]
    assert planned("--method", "reward")["useful_flops"] < planned("--method", "dpo")["useful_flops"]  # no vocabulary in the head
    assert planned("--device", "cpu")["memory_bytes"]["weights"] == 2 * plain["memory_bytes"]["weights"]  # float32
    assert planned("--search", "true")["keys"] != plain["keys"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ["devices must be set"]),
        (["--devices", 0], ["devices: 0 is not allowed; allowed: 1 or more"]),
        (["--devices", 8, "--reserve_gib", 80], ["reserve_gib 80 leaves nothing of device_memory_gib 80"]),
        (["--devices", 8, "--device_memory", 80], ["device_memory: unknown key. Did you mean device_memory_gib?"]),
        (["--devices", 0, "--max_length", 0], ["devices: 0 is not", "max_length: 0 is not"]),
        (["--devices", 8, "--tensor_parallel_degree", 3], ["tensor_parallel_degree 3 x", "does not divide the 8 processes"]),
        (["--devices", 6, "--tensor_parallel_degree", 3], ["num_attention_heads 32 is 3 x 10 + 2"]),
        (["--devices", 40, "--pipeline_parallel_degree", 40], ["the model has 32 layers"]),
        (["--devices", 8, "--sharding", "stage2", "--rows_per_step", 12], ["rows_per_step 12", "1 x data_parallel_degree 8 = 8"]),
        (["--devices", 37, "--rows_per_step", 5], ["rows_per_step 5: no layout of 37 devices"]),
        (["--devices", 8, "--tokens_per_row", 4096], ["tokens_per_row 4096: the longest row has 2,048 tokens, 1 x max_length 2048"]),
        (
            ["--devices", 8, "--tokens_per_batch", 4096, "--per_device_train_batch_size", "null"],
            ["tokens_per_batch 4096: plans count rows"],
        ),
        (["--devices", 8, "--bf16", "false", "--fp16", "true"], ["fp16: plans are made for bf16 and float32"]),
        (["--devices", 8, "--json", "no/such/folder/a.json"], ["json: no/such/folder/a.json cannot be written"]),
        (["--devices", 8, "--model_name_or_path", "nowhere"], ["model_name_or_path: there is no folder nowhere"]),
    ],
)
def test_mistakes_are_told(words: list, told: list[str], llama: Path, capsys: pytest.CaptureFixture):
    code, said = plan(capsys, "sft", llama, *words)
    assert code == 1 and all(text in said for text in told), said
    assert "Traceback" not in said


def test_a_frozen_reference_must_be_cut_as_well(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    config = json.loads((llama / "config.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    words = ["--reference_mode", "frozen", "--ref_model_name_or_path", other, "--devices", 8, "--pipeline_parallel_degree", 4]
    code, said = plan(capsys, "dpo", llama, *words)
    assert code == 1 and "the model has 2 layers, and every stage needs one" in said


def test_a_reference_in_half_precision_takes_half_the_memory(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["--reference_mode", "frozen", "--devices", 2, "--tensor_parallel_degree", 2, "--bf16", "false", "--device", "gpu"]
    found: list[float] = []
    for dtype in ("auto", "bfloat16"):
        assert plan(capsys, "dpo", llama, *words, "--reference_dtype", dtype, "--json", tmp_path / f"{dtype}.json")[0] == 0
        (written,) = json.loads((tmp_path / f"{dtype}.json").read_text())["plans"]
        found.append(written["memory_bytes"]["reference"])
    assert found[1] == pytest.approx(found[0] / 2)


def test_the_page_of_layouts_says_what_the_command_plans():
    assert write_page(ROOT / "docs" / "parallel.md", check=True) == 0
