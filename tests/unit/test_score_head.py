"""The score head: read from config.json, in the place of a language head, new from a seed, and padding that hides no end token."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from paddlealign.errors import UserError
from paddlealign.models.config import parse_config, read_config
from paddlealign.models.parameters import SCORE, cut_axis, holding_stage, parameter_shapes
from paddlealign.models.score_head import ScoreHead, initialise_score, with_score_head
from paddlealign.models.tensor_files import read_tensors, write_tensors
from paddlealign.models.weights import load_model
from paddlealign.recipes.padding import choose_pad_token, with_pad_token
from tests.small_runs import GOLDEN, MODEL

REWARD = GOLDEN / "reward" / "llama2_gqa"


def test_one_label_is_a_reward_model_and_two_are_refused() -> None:
    source = json.loads((REWARD / "config.json").read_text())
    assert parse_config(source, "").head == "score"
    assert parse_config({**source, "architectures": ["LlamaForCausalLM"]}, "").head == "language"
    assert parse_config({key: value for key, value in source.items() if key != "architectures"}, "").head == "language"
    plain = {key: value for key, value in source.items() if key not in ("id2label", "label2id")}
    assert parse_config({**plain, "num_labels": 1}, "").head == "score"
    for labels in ({}, {"num_labels": 3}, {"id2label": {"0": "no", "1": "yes"}}):
        with pytest.raises(UserError, match=r"^here: this is a classifier with [23] labels"):
            parse_config({**plain, **labels}, "here")
    with pytest.raises(
        UserError, match=r"architectures names LlamaForTokenClassification\. .*LlamaForCausalLM .*LlamaForSequenceClassification"
    ):
        parse_config({**source, "architectures": ["LlamaForTokenClassification"]}, "here")
    with pytest.raises(UserError, match="architectures names LlamaForSequenceClassification"):
        parse_config({**source, "architectures": ["LlamaForCausalLM", "LlamaForSequenceClassification"]}, "here")


def test_a_tied_model_unties() -> None:
    language = read_config(GOLDEN / "qwen2_tied")
    score = with_score_head(language, 5)
    assert language.tie_embeddings and not score.tie_embeddings and not parse_config(score.source, "").tie_embeddings
    assert parse_config(score.source, "") == score and score.source["pad_token_id"] == 5
    assert parameter_shapes(score).keys() == parameter_shapes(language).keys() | {SCORE}
    assert with_score_head(score, 5) == score and with_score_head(score, 5).source == score.source


def test_every_process_holds_the_head_whole_and_the_last_stage_has_it() -> None:
    assert cut_axis(SCORE) is None and holding_stage(SCORE, 4, 3) == 2


def test_a_new_head_is_drawn_from_the_seed() -> None:
    def drawn(seed: int) -> np.ndarray:
        head = ScoreHead(4000)
        initialise_score(head, seed)
        return head.weight.numpy()

    assert np.array_equal(drawn(1), drawn(1)) and not np.array_equal(drawn(1), drawn(2))
    assert drawn(1).shape == (4000, 1) and drawn(1).std() * np.sqrt(4001) == pytest.approx(1, abs=0.04)


def test_rewards_are_float32_from_half_precision() -> None:
    """Two hidden states whose scores are one number in bfloat16."""
    head = ScoreHead(2)
    head.weight.set_value(paddle.to_tensor([[5.0], [0.01]]))
    head.to(dtype="bfloat16")
    with paddle.amp.auto_cast(level="O1", dtype="bfloat16"):
        rewards = head(paddle.to_tensor([[1.0, 0.0], [1.0, 1.0]], dtype="bfloat16"))
    assert rewards.dtype == paddle.float32
    assert float(rewards[1] - rewards[0]) == pytest.approx(0.01, rel=0.01)


def test_the_language_head_gives_way_and_nothing_else(tmp_path: Path) -> None:
    config = with_score_head(read_config(MODEL), 0)
    model, language = load_model(MODEL, "float32", config=config), load_model(MODEL, "float32")
    assert not hasattr(model, "lm_head") and not model.score.weight.numpy().any()
    held = dict(language.named_parameters())
    for name, parameter in model.named_parameters():
        assert name == SCORE or np.array_equal(parameter.numpy(), held[name].numpy()), name
    grown = load_model(MODEL, "float32", vocab_size=99, config=config)
    assert grown.config.vocab_size == 99 and grown.config.head == "score"
    assert np.allclose(grown.model.embed_tokens.weight.numpy()[96:], grown.model.embed_tokens.weight.numpy()[:96].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop(SCORE), "1 missing: score.weight"),
        (
            lambda tensors: tensors.update({SCORE: np.zeros((2, 32), "float32")}),
            r"score.weight has the shape \[2, 32\]; config.json makes it \[1, 32\]",
        ),
        (lambda tensors: tensors.update({"lm_head.weight": np.zeros((96, 32), "float32")}), "1 left over: lm_head.weight"),
    ],
)
def test_a_damaged_reward_model_is_refused(change: Callable, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(REWARD, folder)
    tensors = {name: array.copy() for name, array in read_tensors(folder / "model.safetensors").items()}
    change(tensors)
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    with pytest.raises(UserError, match=said):
        load_model(folder, "float32")


def tokenizer_with(special: dict[str, int], named: dict[str, str]) -> SimpleNamespace:
    """What ``choose_pad_token`` looks at."""
    return SimpleNamespace(
        special_tokens=special, named_tokens=named, model=SimpleNamespace(token_to_id=special.get), folder=Path("folder")
    )


SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2, "<|end|>": 7, "<pad>": 9}


@pytest.mark.parametrize(
    ("named", "end_id", "stored", "chosen"),
    [
        ({"pad_token": "<pad>", "unk_token": "<unk>"}, 2, None, ("<pad>", 9)),
        ({"pad_token": "<pad>", "unk_token": "<unk>"}, 2, 7, ("<|end|>", 7)),  # the checkpoint's own
        ({"pad_token": "</s>", "unk_token": "<unk>"}, 2, 2, ("<unk>", 0)),  # never the end token
        ({"pad_token": "</s>", "unk_token": "<unk>"}, 7, 2, ("</s>", 2)),  # which another one may be
        ({"bos_token": "<s>"}, 2, -1, ("<s>", 1)),
        ({}, 0, None, ("<s>", 1)),
        ({"pad_token": "<new>"}, 2, 900, ("<unk>", 0)),
    ],
)
def test_padding_is_a_token_that_ends_no_answer(named: dict[str, str], end_id: int, stored: int | None, chosen: tuple[str, int]) -> None:
    assert choose_pad_token(tokenizer_with(SPECIAL, named), [end_id], stored, 10) == chosen


def test_padding_lies_in_the_models_vocabulary_or_is_refused() -> None:
    assert choose_pad_token(tokenizer_with(SPECIAL, {"pad_token": "<pad>"}), [2], 9, 9) == ("<unk>", 0)
    with pytest.raises(UserError, match=r"^folder: the only special token is the one that ends answers"):
        choose_pad_token(tokenizer_with({"</s>": 2}, {"pad_token": "</s>"}), [2], None, 10)


def test_the_saved_tokenizer_names_the_padding() -> None:
    files = {"tokenizer_config.json": b'{"pad_token": "</s>", "x": "\xc3\xa9"}', "special_tokens_map.json": b"{}", "tokenizer.model": b"m"}
    tokenizer = tokenizer_with(SPECIAL, {"pad_token": "</s>"})
    assert with_pad_token(files, tokenizer, "</s>") == files
    changed = with_pad_token(files, tokenizer, "<unk>")
    assert json.loads(changed["tokenizer_config.json"]) == {"pad_token": "<unk>", "x": "é"}
    assert json.loads(changed["special_tokens_map.json"]) == {"pad_token": "<unk>"} and changed["tokenizer.model"] == b"m"
    assert with_pad_token({}, tokenizer, "<unk>").keys() == {"tokenizer_config.json"}
