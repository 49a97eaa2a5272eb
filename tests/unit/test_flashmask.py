"""What Paddle's flash-mask kernel is given on a GPU, with a stand-in for the kernel and for the place."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import Tensor

from paddlealign.data.packing import make_batch
from paddlealign.models import attention
from paddlealign.models.attention import Attend, packed_attention
from tests.small_runs import examples


class OnGpu:
    """A tensor that says that it lies on a GPU."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
        self.place = SimpleNamespace(is_gpu_place=lambda: True, is_cpu_place=lambda: False)
        self.shape, self.dtype = tensor.shape, tensor.dtype


def dense_flashmask(q: Tensor, k: Tensor, v: Tensor, indices: np.ndarray) -> np.ndarray:
    """The causal one-column form, as the docstring of Paddle's flashmask_attention turns it into a dense mask; float64."""
    query, key, value = (tensor.astype("float64").numpy() for tensor in (q, k, v))
    group = query.shape[2] // key.shape[2]
    rows, length = query.shape[:2]
    mask = np.zeros((rows, 1, length, length))
    for row in range(rows):
        for column in range(length):
            mask[row, 0, indices[row, 0, column, 0] :, column] = -np.inf
            mask[row, 0, :column, column] = -np.inf
    scores = np.einsum("rqhd,rkhd->rhqk", query, np.repeat(key, group, 2)) / np.sqrt(query.shape[-1]) + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("rhqk,rkhd->rqhd", weights / weights.sum(-1, keepdims=True), np.repeat(value, group, 2))


def test_on_a_gpu_paddle_s_kernel_gets_what_it_asks_for(monkeypatch: pytest.MonkeyPatch):
    batch = make_batch(examples(2), [[0, 1], [2, 3]], 0)
    rows, length = batch.input_ids.shape
    calls = []

    def flashmask(q: OnGpu, k: Tensor, v: Tensor, indices: Tensor, *, causal: bool = False) -> np.ndarray:
        calls.append(indices)
        assert causal
        assert q.shape == [rows, length, 4, 8] and k.shape == v.shape == [rows, length, 2, 8]
        assert q.dtype == k.dtype == v.dtype == paddle.bfloat16
        assert indices.dtype == paddle.int32 and indices.shape == [rows, 1, length, 1]
        return dense_flashmask(q.tensor, k, v, indices.numpy())

    monkeypatch.setattr(attention, "flashmask_attention", flashmask)
    indices = batch.visible_until
    assert ((indices > 0) & (indices <= length)).all()
    attend: Attend = packed_attention(indices, batch.position_ids)
    rng = np.random.default_rng(1)
    q, k, v = (paddle.to_tensor(rng.standard_normal((rows, length, heads, 8)).astype("float32")) for heads in (4, 2, 2))
    half = [tensor.astype("bfloat16") for tensor in (q, k, v)]
    from_kernel = attend(0, OnGpu(half[0]), *half[1:], None)
    attend(1, OnGpu(half[0]), *half[1:], None)
    assert len(calls) == 2 and calls[0] is calls[1]  # the indices go to the device once for all layers
    blocks = attend(0, *(tensor.astype("float32") for tensor in half), None).numpy()
    assert np.abs(blocks - from_kernel).max() <= 1e-5
    monkeypatch.setattr(attention._BlockAttention, "apply", lambda *_: "blocks")
    assert attend(0, OnGpu(q), k, v, None) == "blocks"  # float32 has no such kernel
    assert len(calls) == 2
