"""Cut layers over 2 and 4 real ranks against float64 NumPy, positions whole and cut: values, and gradients by central differences."""

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
KINDS = ("plain", "sequence")


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each rank found, in their order."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(Path(__file__).with_name("ranks_tensor_layers.py"), request.param, request.param, folder, timeout=120)
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(request.param)]


def oracle(parameters: dict[str, Array]) -> Array:
    """The block with whole parameters, float64."""
    vectors = parameters["embedding"][IDS]
    wide = np.tanh(vectors * parameters["norm"] @ parameters["column"])
    heads = wide.reshape(*IDS.shape, -1, HEAD_DIM) * parameters["scale"]
    return vectors + heads.reshape(wide.shape) @ parameters["row"] + parameters["bias"]


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


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_is_whole_and_bit_equal_on_every_rank(ranks: Results, kind: str):
    wanted = oracle(inputs()[0])
    assert np.abs(ranks[0][f"{kind} output"] - wanted).max() <= 2e-6 * np.abs(wanted).max()
    assert {rank[f"{kind} output"].tobytes() for rank in ranks} == {ranks[0][f"{kind} output"].tobytes()}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_parts_of_the_whole_ones(ranks: Results, kind: str, name: str):
    """What a rank has its share of only (its heads, its positions) is right once it is summed, and wrong before."""
    wanted = numeric_gradient(name)
    for number, rank in enumerate(ranks):
        part, found = part_of(wanted, SHAPES[name][1], len(ranks), number), f"{kind} gradient of {name}"
        if f"{kind} summed gradient of {name}" in rank:
            assert np.abs(rank[found] - part).max() > 1e-2 * np.abs(wanted).max()
            found = f"{kind} summed gradient of {name}"
        assert rank[found].shape == part.shape
        assert np.abs(rank[found] - part).max() <= 2e-6 * np.abs(wanted).max()
    if SHAPES[name][1] is None:
        assert {rank[found].tobytes() for rank in ranks} == {ranks[0][found].tobytes()}


def test_the_functions_are_what_a_decoder_takes():
    assert CutLayers._fields == tuple(field.name for field in fields(TensorLayers))
