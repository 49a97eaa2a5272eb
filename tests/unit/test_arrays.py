"""Tensors as NumPy sees them, and products of such matrices, by MKL and without it."""

import numpy as np
import paddle
import pytest

from paddlealign.models import arrays
from paddlealign.models.arrays import are_arrays, array_of, multiply


def test_an_array_is_the_tensor_s_memory():
    x = paddle.arange(24, dtype="float32").reshape([2, 3, 4])
    array_of(x[1])[1, 2] = 100.0
    assert x[1, 1, 2].item() == 100.0
    seen = array_of(paddle.full([1000, 1000], 7.0))  # of a tensor that nothing else holds
    paddle.zeros([1000, 1000])
    assert (seen == 7.0).all()


def test_what_is_no_array():
    x = paddle.zeros([4, 4])
    assert are_arrays(x, x[1:]) and not are_arrays(x, x.t()) and not are_arrays(x.astype("float16"))
    with pytest.raises(AssertionError):
        array_of(x.t())


@pytest.mark.parametrize("with_mkl", [True, False])
@pytest.mark.parametrize("m, k, n", [(5, 7, 3), (1, 7, 3), (5, 1, 3), (5, 7, 1), (1, 1, 1), (1, 40, 1)])
def test_products(monkeypatch: pytest.MonkeyPatch, m: int, k: int, n: int, with_mkl: bool):
    if not with_mkl:
        monkeypatch.setattr(arrays, "_sgemm", lambda: None)
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    # Whole matrices, and those of one of three heads that lie in turn.
    lefts = [draw(m, k), draw(k, m).T, draw(m, 3, k)[:, 1], draw(k, 3, m)[:, 2].T]
    rights = [draw(k, n), draw(n, k).T, draw(k, 3, n)[:, 1], draw(n, 3, k)[:, 2].T]
    for a in lefts:
        for b in rights:
            for out in (
                np.full((m, n), 2.0, np.float32),
                np.full((m, 3, n), 2.0, np.float32)[:, 1],
                np.full((m, n + 4), 2.0, np.float32)[:, :n],
            ):
                multiply(a, b, out, 0.5)
                assert np.allclose(out, 0.5 * (a @ b), atol=1e-6)
                multiply(a, b, out, add=True)
                assert np.allclose(out, 1.5 * (a @ b), atol=1e-5)


def test_a_product_writes_nothing_beside_its_place():
    around = np.full((6, 4, 8), 3.0, np.float32)
    a, b = np.ones((6, 2), np.float32), np.ones((2, 8), np.float32)
    multiply(a, b, around[:, 2])
    assert (around[:, 2] == 2.0).all() and (np.delete(around, 2, 1) == 3.0).all()
