"""What export writes for PaddleNLP, loaded by PaddleNLP's own Auto classes: the same logits and ids, or a refusal by name."""

import gzip
import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModelForCausalLM, AutoTokenizer

from paddlealign.data.example import Message
from paddlealign.data.rendering import render_prompt
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.attention import packed_attention
from paddlealign.models.config import parse_config, read_config
from paddlealign.models.generation import generate
from paddlealign.models.paddlenlp_layout import paddlenlp_config, paddlenlp_tokenizer
from paddlealign.models.sampling import GenerationSettings
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model
from paddlealign.recipes.entry import main

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = sorted(path.parent.name for path in GOLDEN.glob("*/golden.npz") if (path.parent / "config.json").exists())
TOKENIZERS = GOLDEN / "tokenizers"
TOKEN_IDS = json.loads(gzip.decompress((TOKENIZERS / "token_ids.json.gz").read_bytes()))
BASE_MODEL = Path(__file__).parents[2] / "data" / "base_model"
COMPUTED = ("llama1", "llama2_gqa", "llama3", "llama_dynamic", "mistral_v3", "qwen2", "qwen2_tied")


def export(folder: Path, output: Path, *extra: str) -> int:
    words = ["--model_name_or_path", str(folder), "--output_dir", str(output), "--format", "paddlenlp", *extra]
    return main("export", words)


def paddlenlp_logits(folder: Path, input_ids: np.ndarray) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype="float32")
    model.eval()
    with paddle.no_grad():
        logits = model(paddle.to_tensor(input_ids))
    return (logits[0] if isinstance(logits, tuple) else logits).numpy()


def our_logits(folder: Path, input_ids: np.ndarray) -> np.ndarray:
    model = load_model(folder, "float32")
    rows, length = input_ids.shape
    position_ids = np.tile(np.arange(length), (rows, 1))
    attend = packed_attention(np.full([rows, 1, length, 1], length, "int32"), position_ids)
    with paddle.no_grad():
        return model.logits(model(paddle.to_tensor(input_ids), paddle.to_tensor(position_ids), attend)).numpy()


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("spelling", ["config.json", "config.v4.json"])
def test_an_exported_model_has_the_logits_of_transformers(name: str, spelling: str, tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / name, tmp_path / "model")
    shutil.copy(GOLDEN / name / spelling, folder / "config.json")
    assert export(folder, tmp_path / "out", "--dtype", "float32") == 0
    golden = np.load(GOLDEN / name / "golden.npz")
    logits = paddlenlp_logits(tmp_path / "out", golden["input_ids"])
    assert np.abs(logits - golden["logits"]).max() <= 2e-5


def test_linear_scaling(tmp_path: Path) -> None:
    """The golden checkpoint with linear scaling has biases too, which PaddleNLP has not."""
    folder = shutil.copytree(GOLDEN / "llama1", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(config))
    assert export(folder, tmp_path / "out") == 0
    golden = np.load(GOLDEN / "llama1" / "golden.npz")
    ours = our_logits(folder, golden["input_ids"])
    assert np.abs(paddlenlp_logits(tmp_path / "out", golden["input_ids"]) - ours).max() <= 2e-5
    assert np.abs(ours - golden["logits"]).max() > 1e-2  # the scaling does something


@pytest.mark.parametrize("scaling", ["dynamic", "linear"])
def test_scaling_without_max_position_embeddings(tmp_path: Path, scaling: str) -> None:
    """The family's default is written, not the positions after scaling; the row is longer than it, so the stretch is at work."""
    folder = shutil.copytree(GOLDEN / "llama1", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    config["rope_parameters"] = {"rope_type": scaling, "factor": 2.0, "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(config))
    assert export(folder, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["max_position_embeddings"] == 2048
    input_ids = np.random.default_rng(0).integers(3, config["vocab_size"], (1, 2300))
    # Angles up to 2300 are held in float32 there.
    assert np.abs(paddlenlp_logits(tmp_path / "out", input_ids) - our_logits(folder, input_ids)).max() <= 2e-4


@pytest.mark.parametrize("name", TOKEN_IDS["folders"])
def test_auto_tokenizer_gives_the_ids_of_transformers(tmp_path: Path, name: str) -> None:
    for file, content in paddlenlp_tokenizer(Tokenizer.load(TOKENIZERS / name)).items():
        (tmp_path / file).write_bytes(content)
    tokenizer, golden = AutoTokenizer.from_pretrained(str(tmp_path)), TOKEN_IDS["folders"][name]
    for text, ids in zip(TOKEN_IDS["texts"], golden["ids"], strict=True):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text
    assert tokenizer("a")["input_ids"] == golden["begin"] + tokenizer("a", add_special_tokens=False)["input_ids"]


def test_an_exported_folder_has_its_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The folder of a tokenizer.model, as a whole: ids, named tokens and chat template, and the text that follows a prompt."""
    assert export(BASE_MODEL, tmp_path / "out") == 0
    theirs, ours = AutoTokenizer.from_pretrained(str(tmp_path / "out")), Tokenizer.load(BASE_MODEL)
    for text in ("Hello world", "  two  spaces\n", " naïve 你好 🙂", "<s>x</s>"):
        assert theirs(text)["input_ids"] == [ours.bos_id, *ours.encode(text).ids.tolist()]
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token) == (ours.bos_id, ours.eos_id, None)
    shown = theirs.apply_chat_template([{"role": "user", "content": "Say hello."}], tokenize=False)
    assert shown == render_prompt(load_template(ours), (Message("user", "Say hello."),)).text
    inputs = theirs(shown, add_special_tokens=False, return_tensors="pd")
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"), dtype="float32")
    model.eval()
    tokens = model.generate(**inputs, max_new_tokens=16, decode_strategy="greedy_search")[0].numpy()[0]
    settings = GenerationSettings(max_new_tokens=16, stop_ids=(ours.eos_id,))
    [[expected]] = generate(load_model(BASE_MODEL, "float32"), [inputs["input_ids"].numpy()[0].tolist()], settings)
    assert tokens.tolist()[: len(expected)] == expected
    assert theirs.decode(tokens.tolist(), skip_special_tokens=True) == ours.decode(expected)
    assert "PaddleNLP warns of a newly initialised lm_head" in capsys.readouterr().out  # its embedding is its head
    assert export(GOLDEN / "llama1", tmp_path / "untied") == 0
    assert "lm_head" not in capsys.readouterr().out


def test_what_paddlenlp_lacks_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in CHECKPOINTS:
        if name in COMPUTED:
            paddlenlp_config(read_config(GOLDEN / name), "float32")
            continue
        assert export(GOLDEN / name, tmp_path / "out") == 1, name
        error = capsys.readouterr().err
        assert error.startswith("error: format: PaddleNLP 3.0.0b4 has no ") and "format huggingface" in error, error
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("llama1", {"attention_bias": True}, "attention_bias and mlp_bias for llama"),
        ("llama1", {"mlp_bias": True}, "attention_bias and mlp_bias for llama"),
        ("llama1", {"head_dim": 16}, "head_dim of its own (16"),
        ("qwen2", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}}, "rope scaling linear for qwen2"),
        ("mistral_v3", {"sliding_window": 16}, "sliding window for Mistral (sliding_window 16"),
        ("mistral_v3", {"tie_word_embeddings": True}, "tie_word_embeddings for mistral"),
        ("qwen2_window", {}, "sliding window for qwen2"),
        ("qwen3", {}, "qwen3 model"),
        ("pythia", {}, "gpt_neox model"),
        ("llama_yarn", {}, "rope scaling yarn for llama"),
    ],
)
def test_each_lack_has_its_name(name: str, change: dict, said: str) -> None:
    source = json.loads((GOLDEN / name / "config.json").read_text()) | change
    with pytest.raises(UserError) as refused:
        paddlenlp_config(parse_config(source, ""), "float32")
    assert said in str(refused.value)


def test_shards_dtypes_and_what_goes_along(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / "llama2_gqa", tmp_path / "model")
    assert export(folder, tmp_path / "out", "--dtype", "bfloat16", "--max_shard_size", "20KB") == 0
    files = {path.name: path for path in (tmp_path / "out").iterdir()}
    shards = [path for name, path in files.items() if name.endswith(".safetensors")]
    assert len(shards) > 1 and all(sum(array.nbytes for array in read_tensors(path).values()) <= 20_000 for path in shards)
    assert {array.dtype for path in shards for array in read_tensors(path).values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert files["generation_config.json"].read_bytes() == (folder / "generation_config.json").read_bytes()
    assert json.loads(files["config.json"].read_text())["dtype"] == "bfloat16"
    # The same rounded weights here and there.
    assert main("export", ["--model_name_or_path", str(folder), "--output_dir", str(tmp_path / "hf"), "--dtype", "bfloat16"]) == 0
    input_ids = np.load(folder / "golden.npz")["input_ids"]
    assert np.abs(paddlenlp_logits(tmp_path / "out", input_ids) - our_logits(tmp_path / "hf", input_ids)).max() <= 2e-5
    with pytest.raises(UserError, match="PaddleNLP's layout"):
        read_config(tmp_path / "out")
