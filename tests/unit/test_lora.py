"""What LoRA's parts do apart: first values, dropout, LoRA+, targets, and what is refused of an adapter's files."""

import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlealign.arguments.fields import ModelArguments
from paddlealign.errors import UserError
from paddlealign.models.adapter_files import read_settings, read_values
from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import ALL_LINEAR, attach, choose_targets, fill, first_values
from paddlealign.models.other_adapter import NO_ADAPTER, worn, zero_adapter
from paddlealign.models.parameters import SCORE, LoraSettings, adapter_shapes, cut_problem
from paddlealign.models.score_head import with_score_head
from paddlealign.models.tensor_files import read_tensors, write_tensors
from paddlealign.models.weight_files import files_beside
from paddlealign.models.weights import load_model
from paddlealign.recipes.adapter import load_tokenizer
from paddlealign.training.objective import sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.reference import model_reference
from paddlealign.training.step import accumulate_gradients, apply_gradients, evaluate
from tests.small_runs import FLOAT32, GOLDEN, MODEL, character_checkpoint, dpo_objective, micro_batches

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapted(dropout: float = 0.0, moved: bool = True, seed: int = 1) -> Decoder:
    """moved: whether lora_B is another than the zeros that it starts from."""
    model = load_model(MODEL, "float32")
    attach(model, LoraSettings(4, 8.0, False, dropout, ALL), "base")
    fill(model, first_values(model, seed))
    if moved:
        rng = np.random.default_rng(0)
        fill(model, lambda name: rng.normal(0, 0.1, model.trained_shapes()[name]).astype("float32"))
    return model


def gradients(model: Decoder, recompute: bool = False, draw: tuple[int, ...] = (0,)) -> dict[str, np.ndarray]:
    sums = accumulate_gradients(model, micro_batches(), sft_objective(), FLOAT32, recompute, draw=draw)
    found = {name: parameter.grad.numpy().copy() for name, parameter in model.trained()}
    for _, parameter in model.trained():
        parameter.clear_gradient(False)
    return {**found, "loss": np.array(sums.values["tokens"]["loss"])}


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(left[name], right[name]) for name in left)


def test_a_new_adapter_changes_no_bit_and_its_first_values_follow_from_the_seed() -> None:
    plain, model = load_model(MODEL, "float32"), adapted(moved=False)
    losses = [evaluate(it, micro_batches(), sft_objective(), FLOAT32).values["tokens"]["loss"] for it in (plain, model)]
    assert losses[0] == losses[1]
    values = {name: parameter.numpy() for name, parameter in model.trained()}
    assert values.keys() == adapter_shapes(model.config, LoraSettings(4, 8.0, False, 0.0, ALL)).keys()
    for name, value in values.items():
        if name.endswith("lora_B"):
            assert not value.any()
        else:
            assert 0.9 * value.shape[0] ** -0.5 < np.abs(value).max() <= value.shape[0] ** -0.5
    again, other = ({name: it.numpy() for name, it in adapted(moved=False, seed=seed).trained()} for seed in (1, 2))
    assert same(values, again)
    assert all(not np.array_equal(values[name], other[name]) for name in values if name.endswith("lora_A"))


def test_dropout_follows_from_the_draw_alone_and_recompute_sees_the_same_masks() -> None:
    model = adapted(dropout=0.3)
    first = gradients(model, draw=(42, 5))
    paddle.seed(0)
    paddle.rand([7])
    assert same(first, gradients(model, draw=(42, 5)))
    assert same(first, gradients(model, recompute=True, draw=(42, 5)))
    assert not same(first, gradients(model, draw=(42, 6)))
    plain = gradients(adapted())
    assert not same(first, plain) and same(plain, gradients(adapted(), recompute=True, draw=(42, 5)))


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    """Over many draws the layer's input is kept on average, and so many of its values are zero."""
    model = adapted(dropout=0.25)
    layer = model.model.layers["0"].mlp.down_proj
    assert model.adapter is not None
    model.adapter.draw = (1, 0)
    model.adapter.enter_layer(0)
    dropped = layer._dropped(paddle.ones([50, 20, 40]), model.adapter).numpy()
    assert set(np.unique(dropped)) == {np.float32(0.0), np.float32(4 / 3)}
    assert np.mean(dropped == 0) == pytest.approx(0.25, abs=0.01)
    model.adapter.draw = None
    assert layer._dropped(paddle.ones([2, 2, 40]), model.adapter).numpy().min() == 1


def test_nothing_is_dropped_in_evaluation_or_by_the_reference() -> None:
    losses = [evaluate(it, micro_batches(), sft_objective(), FLOAT32).values["tokens"]["loss"] for it in (adapted(0.5), adapted())]
    assert losses[0] == losses[1]
    model = adapted(dropout=0.5)
    reference = model_reference(model, FLOAT32, other=NO_ADAPTER)
    before = reference(micro_batches(2)[0]).numpy()
    accumulate_gradients(model, micro_batches(2), dpo_objective(reference, 0.1, 0.0), FLOAT32, False, draw=(3,))
    assert np.array_equal(before, reference(micro_batches(2)[0]).numpy())


OTHERS = {
    "of the same form": LoraSettings(4, 8.0, False, 0.0, ALL),
    "of another rank, scale and modules": LoraSettings(2, 3.0, True, 0.0, ("q_proj", "down_proj")),
}


@pytest.mark.parametrize("trained", [ALL, ("v_proj", "down_proj")], ids=str)
@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_another_adapter_is_worn_for_a_while(settings: LoraSettings, trained: tuple[str, ...]) -> None:
    policy, wanted = (load_model(MODEL, "float32") for _ in range(2))
    attach(policy, LoraSettings(4, 8.0, False, 0.5, trained), "base")
    attach(wanted, settings, "base")
    rng = np.random.default_rng(4)
    values = {name: rng.normal(0, 0.1, shape).astype("float32") for name, shape in wanted.trained_shapes().items()}
    fill(policy, first_values(policy, 3))
    fill(wanted, values.__getitem__)
    other, batch = zero_adapter(policy, settings, "base"), micro_batches(2)[0]
    with worn(policy, other):
        fill(policy, values.__getitem__)
    before = {name: parameter.numpy() for name, parameter in policy.named_parameters()}
    reference = model_reference(policy, FLOAT32, other=other)
    found = reference(batch).numpy()
    assert np.array_equal(found, model_reference(wanted, FLOAT32)(batch).numpy())
    bare = model_reference(policy, FLOAT32, other=NO_ADAPTER)(batch).numpy()
    assert np.array_equal(bare, model_reference(load_model(MODEL, "float32"), FLOAT32)(batch).numpy())
    assert np.abs(found - bare).max() > 1e-3
    after = {name: parameter.numpy() for name, parameter in policy.named_parameters()}
    assert list(after) == list(before) and same(after, before)
    assert [name for name, _ in policy.trained()] == [name for name in before if "lora" in name]
    for _, parameter in policy.trained():
        parameter.set_value(parameter + 1.0)
    assert np.array_equal(reference(batch).numpy(), found)


def test_a_worn_adapter_is_taken_off_after_a_mistake() -> None:
    model = adapted()
    with pytest.raises(RuntimeError), worn(model, NO_ADAPTER):
        raise RuntimeError
    assert {name for name, _ in model.trained()} == set(model.trained_shapes())


@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_lora_plus_is_a_learning_rate_of_its_own_for_lora_b(factor: float) -> None:
    moved = {}
    for scale in (1.0, factor):
        model = adapted()
        optimizer = make_optimizer(model.trained(), 0.9, 0.99, 1e-8, 0.0, scale)
        before = {name: parameter.numpy().copy() for name, parameter in model.trained()}
        accumulate_gradients(model, micro_batches(), sft_objective(), FLOAT32, False)
        apply_gradients(model, optimizer, FLOAT32, 1e-3, 0.0)
        moved[scale] = {name: parameter.numpy() - before[name] for name, parameter in model.trained()}
    for name, step in moved[factor].items():
        wanted = moved[1.0][name] * (factor if name.endswith("lora_B") else 1.0)
        np.testing.assert_allclose(step, wanted, atol=1e-6)


def test_targets_are_chosen_by_name() -> None:
    config = read_config(MODEL)
    assert choose_targets(config, [ALL_LINEAR], "key") == choose_targets(config, [*ALL, ALL_LINEAR], "key") == ALL
    assert choose_targets(config, ["v_proj", "q_proj"], "key") == ("q_proj", "v_proj")
    with pytest.raises(UserError, match="key: lm_head: no linear module of this model's layers; there are q_proj"):
        choose_targets(config, ["lm_head", "q_proj"], "key")


@pytest.mark.parametrize(("name", "fused", "free"), [("phi3", "q_proj, k_proj, v_proj, gate_proj, up_proj", "o_proj, down_proj"),
                                                    ("gpt_neox", "q_proj, k_proj, v_proj", "o_proj, up_proj, down_proj")])  # fmt: skip
def test_modules_that_are_one_tensor_in_the_files_are_refused_by_name(name: str, fused: str, free: str) -> None:
    config = read_config(GOLDEN / name)
    with pytest.raises(UserError, match=f"key: {fused}: one tensor with others .* Name some of {free}."):
        choose_targets(config, [ALL_LINEAR], "key")
    assert choose_targets(config, free.split(", "), "key") == tuple(free.split(", "))


def test_every_shard_must_keep_a_parameter_of_the_adapter() -> None:
    config, few = read_config(MODEL), LoraSettings(4, 8.0, False, 0.0, ("q_proj",))
    assert cut_problem(config, 1, 2, 2, few) is None and cut_problem(config, 1, 2, 3) is None
    assert "a stage of the model has 2 parameters that are trained" in str(cut_problem(config, 1, 2, 3, few))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"use_dora": True}, "use_dora is True, which is not computed here"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head']; beside adapters only a reward model's head"),
        ({"task_type": "SEQ_CLS"}, "this adapter is a reward model's"),
        ({"modules_to_save": ["score"]}, "this adapter is a reward model's"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is"),
        ({"r": 0}, "r is 0"),
        ({"r": 5}, "the base model with this rank makes it [5, 32]"),
    ],
)
def test_other_kinds_of_adapters_are_refused_by_key(tmp_path: Path, change: dict, told: str) -> None:
    folder = shutil.copytree(GOLDEN / "lora" / "llama2_gqa", tmp_path / "adapter")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    config = read_config(MODEL)
    with pytest.raises(UserError) as caught:
        read_values(folder, config, read_settings(folder, config))
    assert told in str(caught.value) and str(tmp_path) in str(caught.value)


def test_tensors_that_are_missing_or_left_over_or_broken_are_refused_by_name(tmp_path: Path) -> None:
    folder, config = shutil.copytree(GOLDEN / "lora" / "llama2_gqa", tmp_path / "adapter"), read_config(MODEL)
    path = folder / "adapter_model.safetensors"
    whole = read_tensors(path)
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"

    def refusal(tensors: dict[str, np.ndarray]) -> str:
        write_tensors(path, tensors)
        with pytest.raises(UserError) as caught:
            values = read_values(folder, config, read_settings(folder, config))
            values("model.layers.1.mlp.up_proj.lora_A")
        return str(caught.value)

    assert f"1 missing: {name}" in refusal({key: it for key, it in whole.items() if key != name})
    assert "1 left over: base_model.model.lm_head.lora_A.weight" in refusal(
        {**whole, "base_model.model.lm_head.lora_A.weight": whole[name]}
    )
    assert "NaN or infinite" in refusal({**whole, name: whole[name] * np.nan})


def test_a_score_head_that_an_adapter_promises_must_be_there(tmp_path: Path) -> None:
    folder, config = shutil.copytree(GOLDEN / "lora" / "reward_llama2_gqa", tmp_path / "adapter"), with_score_head(read_config(MODEL))
    name, path = "base_model.model.score.weight", folder / "adapter_model.safetensors"
    tensors = read_tensors(path)
    assert read_settings(folder, config).whole == (SCORE,)
    for held, told in (
        ({key: it for key, it in tensors.items() if key != name}, f"1 missing: {name}"),
        ({**tensors, name: np.ones((2, 32), "float32")}, f"{name} has the shape [2, 32]; "),
    ):
        write_tensors(path, held)
        with pytest.raises(UserError) as caught:
            read_values(folder, config, read_settings(folder, config))
        assert told in str(caught.value)
    plain = GOLDEN / "lora" / "llama2_gqa"  # has none: the model's own, or a new one, stays
    assert read_values(plain, config, read_settings(plain, config))(SCORE) is None


def test_the_models_config_names_the_bos_that_lies_not_beside_the_adapter(tmp_path: Path) -> None:
    base = character_checkpoint(tmp_path / "base")
    (base / "tokenizer_config.json").write_text("{}")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name, content in files_beside(base, base).items():
        (adapter / name).write_bytes(content)
    alone, beside = (load_tokenizer(ModelArguments(model_name_or_path=str(base)), path) for path in (None, str(adapter)))
    assert beside.folder == adapter and beside.add_bos == alone.add_bos and beside.fingerprint == alone.fingerprint
    assert beside.named_tokens == alone.named_tokens == {"bos_token": "<s>", "eos_token": "</s>"}
