"""Each kernel against float64 NumPy: values, and gradients by central differences of the NumPy function."""

from collections.abc import Callable, Iterator

import numpy as np
import paddle
import pytest

from paddlealign.models import attention, attention_blocks, cpu_attention, head, threads
from paddlealign.models.attention import packed_attention
from paddlealign.models.head import collision_logps, token_logps
from paddlealign.models.kernels import rms_norm, rotary, rotary_tables, swiglu

Array = np.ndarray


def numeric_gradient(function: Callable[..., Array], inputs: list[Array], which: int, upstream: Array) -> Array:
    """Gradient of sum(function * upstream) with respect to one input, float64 central differences."""
    gradient = np.zeros_like(inputs[which])
    for index in np.ndindex(*gradient.shape):
        sides = []
        for sign in (1, -1):
            moved = [array.copy() for array in inputs]
            moved[which][index] += sign * 1e-5
            sides.append((function(*moved) * upstream).sum())
        gradient[index] = (sides[0] - sides[1]) / 2e-5
    return gradient


def check(ours: Callable[..., paddle.Tensor], oracle: Callable[..., Array], inputs: list[Array], tolerance: float = 2e-6) -> None:
    """Value and every input's gradient, to ``tolerance`` of the largest figure."""
    tensors = [paddle.to_tensor(array.astype("float32"), stop_gradient=False) for array in inputs]
    result = ours(*tensors)
    wanted = oracle(*inputs)
    upstream = np.random.default_rng(7).standard_normal(wanted.shape)
    result.backward(paddle.to_tensor(upstream.astype("float32")))
    assert np.abs(result.numpy() - wanted).max() <= tolerance * max(1.0, np.abs(wanted).max())
    for which, tensor in enumerate(tensors):
        gradient = numeric_gradient(oracle, inputs, which, upstream)
        assert np.abs(tensor.grad.numpy() - gradient).max() <= tolerance * max(1.0, np.abs(gradient).max()), which


def rms_oracle(x: Array, weight: Array) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight


def swiglu_oracle(gate: Array, up: Array) -> Array:
    return gate / (1 + np.exp(-gate)) * up


def test_rms_norm():
    rng = np.random.default_rng(0)
    check(lambda x, w: rms_norm(x, w, 1e-5), rms_oracle, [rng.standard_normal((2, 3, 8)), rng.standard_normal(8)])


def test_swiglu():
    rng = np.random.default_rng(1)
    check(swiglu, swiglu_oracle, [rng.standard_normal((3, 5)) * 3, rng.standard_normal((3, 5))])


def test_norm_brings_nothing_from_the_host(monkeypatch: pytest.MonkeyPatch):
    x, weight = paddle.rand([2, 8]), paddle.rand([8])
    monkeypatch.setattr(paddle, "to_tensor", None)
    rms_norm(x, weight, 1e-5)


def test_rotary():
    rng = np.random.default_rng(2)
    positions = np.array([[0, 1, 5], [3, 100, 7]])
    frequencies = np.array([1.0, 0.1, 0.01])
    angles = positions[:, :, None, None] * frequencies

    def oracle(x: Array) -> Array:
        turned = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * angles)
        return np.concatenate([turned.real, turned.imag], -1)

    tables = rotary_tables(paddle.to_tensor(positions), paddle.to_tensor(frequencies, dtype="float32"), 1.0, 3)
    check(lambda x: rotary(x, *tables), oracle, [rng.standard_normal((2, 3, 2, 6))], tolerance=1e-5)


def test_rotary_of_a_part_scaled():
    rng = np.random.default_rng(2)
    positions, frequencies = np.array([[0, 1, 5], [3, 100, 7]]), np.array([1.0, 0.1])
    angles = positions[:, :, None, None] * frequencies

    def oracle(x: Array) -> Array:
        turned = 1.3 * (x[..., :2] + 1j * x[..., 2:4]) * np.exp(1j * angles)
        return np.concatenate([turned.real, turned.imag, x[..., 4:]], -1)

    tables = rotary_tables(paddle.to_tensor(positions), paddle.to_tensor(frequencies, dtype="float32"), 1.3, 2)
    check(lambda x: rotary(x, *tables), oracle, [rng.standard_normal((2, 3, 2, 7))], tolerance=1e-5)


def dense_attention(until: Array, positions: Array, window: int | None) -> Callable[[Array, Array, Array], Array]:
    """Attention by a full matrix built from the definition: key j is seen by queries j .. until[j] - 1 fewer than window positions on."""
    rows, length = until.shape
    mask = np.zeros((rows, length, length), bool)
    for row in range(rows):
        for key in range(length):
            for query in range(key, until[row, key]):
                mask[row, query, key] = window is None or positions[row, query] - positions[row, key] < window

    def oracle(q: Array, k: Array, v: Array) -> Array:
        group = q.shape[2] // k.shape[2]
        k, v = np.repeat(k, group, axis=2), np.repeat(v, group, axis=2)
        scores = np.einsum("rqhd,rkhd->rhqk", q, k) * q.shape[-1] ** -0.5
        scores = np.where(mask[:, None], scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return np.einsum("rhqk,rkhd->rqhd", weights / weights.sum(-1, keepdims=True), v)

    return oracle


# Row 0: a prompt of 3 with branches of 4 and 3, then an example of 2, then padding. Row 1: one example of 13.
UNTIL = np.array([[10, 10, 10, 7, 7, 7, 7, 10, 10, 10, 12, 12, 13], [13] * 13], dtype="int32")
POSITIONS = np.array([[0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 0, 1, 0], list(range(13))])


@pytest.fixture(params=[1, 3])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that share their work out do so to one thread, and to three."""
    monkeypatch.setattr(threads, "product_threads", lambda environ: request.param)
    threads._pool.cache_clear()
    yield
    threads._pool.cache_clear()


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("window", [None, 1, 2, 4, 6, 7, 20])
@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (3, 1)])
def test_block_attention(monkeypatch: pytest.MonkeyPatch, heads: int, kv_heads: int, window: int | None):
    monkeypatch.setattr(attention_blocks, "QUERY_BLOCK", 4)
    monkeypatch.setattr(attention_blocks, "KEY_BLOCK", 2)
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal((2, 13, count, 4)) for count in (heads, kv_heads, kv_heads)]
    attend = packed_attention(UNTIL[:, None, :, None], POSITIONS)
    check(lambda q, k, v: attend(0, q, k, v, window), dense_attention(UNTIL, POSITIONS, window), inputs)
    blocks = attention_blocks.plan_blocks(UNTIL, POSITIONS, window)
    biases = [attention._bias_of(block) for block in blocks]
    on_any_device = attention._BlockAttention.apply
    check(lambda q, k, v: on_any_device(q, k, v, blocks, biases, 0.5), dense_attention(UNTIL, POSITIONS, window), inputs)


@pytest.mark.parametrize("scores", [1, 40, 1 << 20])  # of one head, of some, of all
@pytest.mark.parametrize("heads, kv_heads", [(6, 6), (6, 2)])
def test_attention_of_a_few_heads_at_a_time(monkeypatch: pytest.MonkeyPatch, heads: int, kv_heads: int, scores: int):
    monkeypatch.setattr(cpu_attention, "SCORES", scores)
    monkeypatch.setattr(attention_blocks, "QUERY_BLOCK", 4)
    rng = np.random.default_rng(5)
    inputs = [rng.standard_normal((2, 13, count, 4)) for count in (heads, kv_heads, kv_heads)]
    attend = packed_attention(UNTIL[:, None, :, None], POSITIONS)
    check(lambda q, k, v: attend(0, q, k, v, None), dense_attention(UNTIL, POSITIONS, None), inputs)


@pytest.mark.parametrize("shift", [-300.0, -80.0, 80.0, 300.0])
def test_attention_of_scores_far_from_zero(shift: float):
    """exp of them is 0 or not finite; what is seen is found all the same."""
    rng = np.random.default_rng(6)
    q, k, v = (rng.standard_normal((2, 13, 2, 4)) for _ in range(3))
    q[..., 0], k[..., 0] = 2.0, shift  # adds shift to every score
    attend = packed_attention(UNTIL[:, None, :, None], POSITIONS)
    check(lambda *given: attend(0, *given, None), dense_attention(UNTIL, POSITIONS, None), [q, k, v], tolerance=2e-4)


def test_attention_tells_of_a_number_that_is_none():
    q, k, v = (paddle.randn([1, 13, 2, 4]) for _ in range(3))
    k[0, 4, 0, 0] = float("nan")
    out = packed_attention(UNTIL[1:, None, :, None], POSITIONS[1:])(0, q, k, v, None).numpy()
    assert np.isnan(out[0, 4:, 0]).all() and np.isfinite(out[0, :, 1]).all()


def test_a_window_as_row_indices_where_they_can_say_it():
    assert attention.window_indices(UNTIL, POSITIONS, None) is UNTIL
    assert np.array_equal(attention.window_indices(UNTIL[:1], POSITIONS[:1], 7), UNTIL[:1])  # nothing is that far away
    assert attention.window_indices(UNTIL, POSITIONS, 4) is None  # the prompt of row 0 has two branches
    told = attention.window_indices(UNTIL[1:], POSITIONS[1:], 4)
    assert told is not None and told.dtype == np.int32
    assert told.tolist() == [[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 13, 13, 13]]


def test_block_attention_skips_what_nobody_sees(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention_blocks, "QUERY_BLOCK", 4)
    monkeypatch.setattr(attention_blocks, "KEY_BLOCK", 4)
    # A prompt of 4 and two branches of 4: the second branch meets the prompt and itself, not the first branch.
    until = np.array([[12] * 4 + [8] * 4 + [12] * 4], dtype="int32")
    positions = np.array([[*range(8), *range(4, 8)]])
    blocks = attention_blocks.plan_blocks(until, positions, None)
    assert [block.runs for block in blocks] == [((0, 4),), ((0, 8),), ((0, 4), (8, 12))]
    # What is kept is the diagonal: the prompt before a branch is visible to all of it.
    assert [(block.clear, block.bias.shape) for block in blocks] == [(1, (4, 3)), (5, (4, 3)), (5, (4, 3))]
    # With a window of 1 every query sees itself alone.
    assert [block.runs for block in attention_blocks.plan_blocks(until, positions, 1)] == [((0, 4),), ((4, 8),), ((8, 12),)]


def test_backward_of_a_long_row_writes_as_much_as_of_its_examples(monkeypatch: pytest.MonkeyPatch):
    multiply, written = cpu_attention.multiply, []

    def counted(a: Array, b: Array, out: Array, scale: float = 1.0, add: bool = False) -> None:
        written.append(out.size)
        multiply(a, b, out, scale, add)

    monkeypatch.setattr(cpu_attention, "multiply", counted)

    def backward(examples: int) -> int:
        until = np.repeat(np.arange(1, examples + 1) * 192, 192).astype(np.int32)[None, None, :, None]
        attend = packed_attention(until, np.tile(np.arange(192), examples)[None])
        q, k, v = (paddle.randn([1, examples * 192, 1, 4]) for _ in range(3))
        q.stop_gradient = k.stop_gradient = v.stop_gradient = False
        out = attend(0, q, k, v, None)
        written.clear()
        out.sum().backward()
        return sum(written)

    few = backward(16)
    assert 0 < backward(64) < 4.5 * few


def test_a_window_is_looked_for_in_the_queries_own_examples(monkeypatch: pytest.MonkeyPatch):
    visible, looked = attention_blocks._visible, []
    monkeypatch.setattr(attention_blocks, "_visible", lambda *given: [looked.append(given[-1].size), visible(*given)][1])
    until, positions = np.repeat(np.arange(1, 33) * 64, 64).astype(np.int32)[None], np.tile(np.arange(64), 32)[None]
    blocks = attention_blocks.plan_blocks(until, positions, 8)
    assert [block.runs for block in blocks] == [((start, start + 256),) for start in range(0, 2048, 256)]
    assert max(looked) == 256


def test_block_attention_keeps_no_mask_of_what_all_see(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention_blocks, "QUERY_BLOCK", 4)
    monkeypatch.setattr(attention_blocks, "KEY_BLOCK", 4)
    blocks = attention_blocks.plan_blocks(np.full((1, 400), 400, "int32"), np.arange(400)[None], None)
    assert sum(block.bias.size for block in blocks) == 100 * 4 * 3  # of 400 * 400 / 2


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("vocabulary_first", [True, False])
@pytest.mark.parametrize("chunk_elements", [1, 46, 1 << 20])
@pytest.mark.parametrize("on_arrays", [True, False])
def test_token_logps(monkeypatch: pytest.MonkeyPatch, on_arrays: bool, chunk_elements: int, vocabulary_first: bool):
    if not on_arrays:  # as on other devices
        monkeypatch.setattr(head, "are_arrays", lambda *tensors: False)
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", chunk_elements)
    rng = np.random.default_rng(4)
    inputs = [rng.standard_normal((7, 4)), rng.standard_normal((23, 4) if vocabulary_first else (4, 23))]
    logits = inputs[0] @ (inputs[1].T if vocabulary_first else inputs[1])
    targets = rng.integers(0, 23, 7)
    targets[::2] = logits.argmax(-1)[::2]

    def oracle(hidden: Array, weights: Array) -> Array:
        logits = hidden @ (weights.T if vocabulary_first else weights)
        return logits[np.arange(7), targets] - np.log(np.exp(logits).sum(-1))

    check(lambda hidden, weights: token_logps(hidden, weights, paddle.to_tensor(targets), vocabulary_first)[0], oracle, inputs)
    tensors = [paddle.to_tensor(array.astype("float32")) for array in inputs]
    correct = token_logps(*tensors, paddle.to_tensor(targets), vocabulary_first)[1].numpy()
    assert correct[::2].all() and (correct == (logits.argmax(-1) == targets)).all()


def test_the_chunk_that_is_kept_for_backward_is_a_whole_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 46)
    assert head._chunks(7, 23) == [(0, 1), (1, 3), (3, 5), (5, 7)]
    assert head._chunks(1, 23) == [(0, 1)]


@pytest.mark.parametrize("vocabulary_first", [True, False])
@pytest.mark.parametrize("chunk_elements", [1, 46, 1 << 20])
def test_collision_logps(monkeypatch: pytest.MonkeyPatch, chunk_elements: int, vocabulary_first: bool):
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", chunk_elements)
    rng = np.random.default_rng(4)
    hidden, weights = 3.0 * rng.standard_normal((7, 4)), rng.standard_normal((23, 4))
    tensors = [paddle.to_tensor(array.astype("float32")) for array in (hidden, weights if vocabulary_first else weights.T)]
    found = collision_logps(*tensors, vocabulary_first)
    logits = hidden @ weights.T
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert np.abs(found.numpy() - np.log((shares**2).sum(-1))).max() <= 2e-6 and found.stop_gradient
    far = collision_logps(paddle.to_tensor([[1.0, 0.0]]), paddle.to_tensor([[500.0, 0.0], [-500.0, 0.0]]), True)
    assert far.tolist() == [0.0]


def test_token_logps_of_unlikely_tokens_are_exact():
    hidden = paddle.to_tensor([[1.0, 0.0]])
    weights = paddle.to_tensor([[500.0, 0.0], [0.0, 0.0]])
    assert token_logps(hidden, weights, paddle.to_tensor([1]), True)[0].tolist() == [-500.0]


def test_token_logps_of_a_large_vocabulary_are_right():
    """LLaMA-3's 128,256 tokens: a sum that adds one by one in float32 would be off by 2e-4."""
    rng = np.random.default_rng(6)
    hidden, weights = rng.standard_normal((16, 8)).astype("float32"), rng.standard_normal((128_256, 8)).astype("float32")
    targets = rng.integers(0, 128_256, 16)
    logits = hidden.astype("float64") @ weights.T.astype("float64")
    expected = logits[np.arange(16), targets] - np.log(np.exp(logits).sum(-1))
    found = token_logps(paddle.to_tensor(hidden), paddle.to_tensor(weights), paddle.to_tensor(targets), True)[0].numpy()
    assert np.abs(found - expected).max() <= 1e-5
