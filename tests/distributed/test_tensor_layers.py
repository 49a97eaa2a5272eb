"""Fleet's layers over 2 and 4 real ranks against float64 NumPy: values, and gradients by central differences."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from paddlealign.models.makers import TensorLayers
from paddlealign.parallel.tensor import CutLayers
from tests.distributed.launching import run_ranks
from tests.distributed.ranks_tensor_layers import HEAD_DIM, IDS, SHAPES, inputs, part_of

Array = np.ndarray
Results = list[dict[str, Array]]


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each rank found, in their order."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(Path(__file__).with_name("ranks_tensor_layers.py"), request.param, request.param, folder, timeout=120)
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(request.param)]


def oracle(parameters: dict[str, Array]) -> Array:
    """The block with whole parameters, float64."""
    vectors = parameters["embedding.weight"][IDS]
    wide = np.tanh(vectors @ parameters["column.weight"] + parameters["column.bias"])
    heads = wide.reshape(*IDS.shape, -1, HEAD_DIM) * parameters["scale"]
    return vectors + heads.reshape(wide.shape) @ parameters["row.weight"] + parameters["row.bias"]


def numeric_gradient(name: str) -> Array:
    """Gradient of sum(oracle * upstream) by one whole parameter, central differences."""
    parameters, upstream = inputs()
    gradient = np.zeros_like(parameters[name])
    for index in np.ndindex(*gradient.shape):
        sides = []
        for sign in (1, -1):
            moved = parameters[name].copy()
            moved[index] += sign * 1e-5
            sides.append((oracle({**parameters, name: moved}) * upstream).sum())
        gradient[index] = (sides[0] - sides[1]) / 2e-5
    return gradient


def test_the_output_is_whole_and_bit_equal_on_every_rank(ranks: Results):
    wanted = oracle(inputs()[0])
    assert np.abs(ranks[0]["output"] - wanted).max() <= 2e-6 * np.abs(wanted).max()
    assert {rank["output"].tobytes() for rank in ranks} == {ranks[0]["output"].tobytes()}


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "scale"])
def test_gradients_are_the_parts_of_the_whole_ones(ranks: Results, name: str):
    wanted = numeric_gradient(name)
    for number, rank in enumerate(ranks):
        part = part_of(wanted, SHAPES[name][1], len(ranks), number)
        assert rank[f"gradient of {name}"].shape == part.shape
        assert np.abs(rank[f"gradient of {name}"] - part).max() <= 2e-6 * np.abs(wanted).max()
    if SHAPES[name][1] is None:
        assert {rank[f"gradient of {name}"].tobytes() for rank in ranks} == {ranks[0][f"gradient of {name}"].tobytes()}


def test_what_is_held_whole_but_used_in_parts_needs_its_gradients_summed(ranks: Results):
    wanted = numeric_gradient("scale")
    for rank in ranks:
        assert np.abs(rank["gradient of scale"] - wanted).max() > 1e-2 * np.abs(wanted).max()
        assert np.abs(rank["summed gradient of scale"] - wanted).max() <= 2e-6 * np.abs(wanted).max()
    assert {rank["summed gradient of scale"].tobytes() for rank in ranks} == {ranks[0]["summed gradient of scale"].tobytes()}


def test_new_layers_are_zeros_with_the_biases_and_the_dtype_that_were_asked_for(ranks: Results):
    for rank in ranks:
        new = {name: value for name, value in rank.items() if name.startswith("new ")}
        assert len(new) == 5
        assert not any(value.any() for value in new.values())
        assert rank["biases not asked for"].tolist() == [False, False]
        assert rank["dtypes"].tolist() == ["paddle.bfloat16"] * 3


def test_the_makers_are_what_a_decoder_takes():
    assert CutLayers._fields == tuple(field.name for field in fields(TensorLayers))
