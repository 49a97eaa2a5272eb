"""Cached log-probs: used only where they are sound, resumed where their build was broken off, and harmless to another run's."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlealign.errors import UserError
from paddlealign.models.tensor_files import read_tensors, write_tensors
from paddlealign.models.weights import load_model
from paddlealign.training import reference_cache
from paddlealign.training.reference_cache import Parts, compute_logps, fingerprint, read_cache, settle_cache, write_cache, write_part
from tests.small_runs import FLOAT32, MODEL, examples

COUNT = 11


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One example a row, and two rows a part."""
    monkeypatch.setattr(reference_cache, "ROW_TOKENS", 1)
    monkeypatch.setattr(reference_cache, "PART_ROWS", 2)


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL, "float32")


def table(model, parts: Parts | None = None) -> np.ndarray:
    return compute_logps(model, examples(2, COUNT), 0, FLOAT32, "log-probs", False, parts=parts)


def parts_in(folder: Path) -> Parts:
    return Parts(read_cache(folder, "name", COUNT).logps, partial(write_part, folder, "name"))


class BrokenOffError(Exception):
    """A build ends here."""


def broken_off(model, folder: Path, after: int) -> None:
    """Build until so many parts are kept."""
    kept = []

    def keep(numbers: np.ndarray, logps: np.ndarray) -> None:
        write_part(folder, "name", numbers, logps)
        kept.append(numbers)
        if len(kept) == after:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        table(model, Parts(read_cache(folder, "name", COUNT).logps, keep))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The examples of every batch that is computed from here on."""
    seen: list[int] = []
    real = reference_cache.model_logps

    def logps(model, batch, *rest):
        seen.extend(batch.example_ids.tolist())
        return real(model, batch, *rest)

    monkeypatch.setattr(reference_cache, "model_logps", logps)
    return seen


def test_a_build_that_was_broken_off_goes_on_where_it_was(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = table(model)
    broken_off(model, tmp_path, after=3)
    assert len(list(tmp_path.iterdir())) == 3
    known = ~np.isnan(read_cache(tmp_path, "name", COUNT).logps).any(1)
    assert known.sum() == 6
    seen = counted(monkeypatch)
    broken_off(model, tmp_path, after=1)
    again = table(model, parts_in(tmp_path))
    assert sorted(seen) == np.flatnonzero(~known).tolist()  # each of the others once, over two more starts
    assert np.array_equal(again, whole)
    write_cache(tmp_path, "name", again)
    assert [path.name for path in tmp_path.iterdir()] == ["name.safetensors"]
    assert np.array_equal(read_cache(tmp_path, "name", COUNT).logps, whole)


@pytest.mark.parametrize("harm", ["cut", "flipped", "of another table"])
def test_a_damaged_part_is_told_and_computed_again(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str):
    whole = table(model)
    broken_off(model, tmp_path, after=3)
    path = sorted(tmp_path.iterdir())[1]
    lost = read_tensors(path)["examples"].tolist()
    content = bytearray(path.read_bytes())
    if harm == "of another table":
        write_part(tmp_path, "other", np.array(lost), whole[lost])
        (written,) = tmp_path.glob("other*")
        content = bytearray(written.read_bytes())
        written.unlink()
    elif harm == "flipped":
        content[-1] ^= 1
    path.write_bytes(content[:-3] if harm == "cut" else content)
    found = read_cache(tmp_path, "name", COUNT)
    assert np.isnan(found.logps[lost]).all() and len(found.remarks) == 1
    assert str(path) in found.remarks[0] and "computed again" in found.remarks[0]
    seen = counted(monkeypatch)
    assert np.array_equal(table(model, parts_in(tmp_path)), whole)
    assert set(lost) <= set(seen) and len(seen) == COUNT - 4


def test_two_runs_at_once_do_not_harm_each_other(model, tmp_path: Path):
    whole = table(model)
    others: list[np.ndarray] = []

    def keep(numbers: np.ndarray, logps: np.ndarray) -> None:
        write_part(tmp_path, "name", numbers, logps)
        if not others:  # the other run starts now, builds on these parts, and is done before this one
            others.append(table(model, parts_in(tmp_path)))
            write_cache(tmp_path, "name", others[0])

    ours = table(model, Parts(read_cache(tmp_path, "name", COUNT).logps, keep))
    assert np.array_equal(read_cache(tmp_path, "name", COUNT).logps, whole)
    write_cache(tmp_path, "name", ours)
    assert np.array_equal(ours, whole) and np.array_equal(others[0], whole)
    assert [path.name for path in tmp_path.iterdir()] == ["name.safetensors"]


def test_no_flipped_bit_is_ever_used(tmp_path: Path):
    logps = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    write_cache(tmp_path, "name", logps)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        found = read_cache(tmp_path, "name", 5)
        # What stands in the header beside the tensors, as the fingerprint for people, decides nothing.
        assert np.array_equal(found.logps, logps) if not found.remarks else np.isnan(found.logps).all()
        assert found.remarks or content[:place].count(b"dtype") == 0
    for length in (0, 20, len(content) - 1):
        path.write_bytes(content[:length])
        assert read_cache(tmp_path, "name", 5).remarks


def rewritten(change: Callable[[np.ndarray], np.ndarray], folder: Path, name: str, count: int) -> None:
    logps = np.random.default_rng(0).standard_normal((count, 2)).astype("float32")
    write_cache(folder, name, change(logps))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda folder: rewritten(lambda logps: logps, folder, "name", 6), "numbers other examples"),
        (lambda folder: rewritten(lambda logps: logps * np.float32("inf"), folder, "name", 5), "NaN or infinite"),
        (lambda folder: rewritten(lambda logps: logps.astype("float64"), folder, "name", 5), "float64"),
        (lambda folder: rewritten(lambda logps: logps[:, :1], folder, "name", 5), r"(5, 1)"),
        (lambda folder: write_tensors(folder / "name.safetensors", {"logps": np.zeros((5, 2), "float32")}), "not examples, logps and"),
    ],
    ids=["more examples", "infinite", "dtype", "shape", "no checksum"],
)  # fmt: skip
def test_what_does_not_fit_is_told_and_not_used(tmp_path: Path, write: Callable[[Path], None], said: str):
    write(tmp_path)
    found = read_cache(tmp_path, "name", 5)
    assert np.isnan(found.logps).all() and len(found.remarks) == 1 and said in found.remarks[0]


def test_a_table_without_some_examples_is_not_whole(tmp_path: Path):
    rewritten(lambda logps: logps, tmp_path, "name", 4)
    found = read_cache(tmp_path, "name", 5)
    assert np.isnan(found.logps[4]).all()  # the table is not whole, so that the rest is computed


def test_numbers_that_are_not_finite_are_never_kept(model, tmp_path: Path):
    broken = load_model(MODEL, "float32")
    broken.model.norm.weight.set_value(broken.model.norm.weight * paddle.to_tensor(float("nan")))
    with pytest.raises(UserError, match="are NaN or infinite"):
        table(broken, parts_in(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_table_of_which_only_parts_are_there_is_written_whole(tmp_path: Path):
    """A build that was killed behind its last part: nothing is left to compute, and the parts go."""
    logps = np.arange(12, dtype="float32").reshape(6, 2)
    for numbers in (np.arange(4), np.arange(4, 6)):
        write_part(tmp_path, "t", numbers, logps[numbers])
    settle_cache(tmp_path, "t", read_cache(tmp_path, "t", 6)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]
    assert (read_cache(tmp_path, "t", 6)[0] == logps).all()


def test_the_name_depends_on_ld_alpha_and_on_an_adapter():
    names = [fingerprint("tokens", weights, "float32 O1", alpha) for weights in ("w", "w with adapter a") for alpha in (1.0, 0.5)]
    assert len(set(names)) == 4
