"""PyTorch's .bin files: values bit by bit as torch wrote them (scripts/golden/pickles.py), and nothing called that a file names."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from paddlealign.errors import UserError
from paddlealign.models.pickle_files import read_pickle
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.tensor_places import blocks, read_all, read_rows
from tests.torch_files import tensor_pickle, write_archive

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "pickles"


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_pickle(path)
    return str(refused.value)


def test_every_tensor_is_what_torch_wrote() -> None:
    expected = read_tensors(GOLDEN / "state.safetensors")
    places = read_pickle(GOLDEN / "state.bin")
    assert places.keys() == expected.keys()
    for name, place in places.items():
        array = read_all(place)
        assert (array.dtype, array.shape) == (expected[name].dtype, expected[name].shape), name
        assert array.tobytes() == expected[name].tobytes(), name
    assert places["tied"].offset == places["embedding"].offset


@pytest.mark.parametrize("name", ["float32", "transposed", "transposed_bfloat16", "column", "view"])
def test_rows_are_read_where_they_lie(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddlealign.models.tensor_places.BLOCK_BYTES", 1)
    expected, place = read_tensors(GOLDEN / "state.safetensors")[name], read_pickle(GOLDEN / "state.bin")[name]
    assert np.array_equal(read_rows(place, 1, 3), expected[1:3])
    pieces = [read_rows(place, *rows) for rows in blocks(place, 0, len(expected))]
    assert np.array_equal(np.concatenate(pieces), expected)
    assert (len(pieces) > 1) == (name in ("float32", "view"))


def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'harm'}",)

    for content in (Attack(), {"weight": Attack()}, OrderedDict(weight=[Attack()])):
        for protocol in (2, 3, 4, 5):
            message = refusal(write_archive(tmp_path / "attack.bin", pickle.dumps(content, protocol)))
            assert "wants to call" in message and f"{os.system.__module__}.system" in message
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["builtins eval", "torch load", "torch._utils _rebuild_tensor", "collections deque", "functools partial"])
def test_no_other_name_is_known(name: str, tmp_path: Path) -> None:
    module, attribute = name.split()
    assert f"wants to call {module}.{attribute}" in refusal(write_archive(tmp_path / "a.bin", f"c{module}\n{attribute}\n.".encode()))


def test_other_formats_are_named(tmp_path: Path) -> None:
    assert "torch before 1.6" in refusal(GOLDEN / "legacy.bin")
    assert "torch.nn.modules.linear.Linear" in refusal(GOLDEN / "whole_module.bin")
    assert "compressed" in refusal(GOLDEN / "deflated.bin")
    assert "something else than a state dict" in refusal(write_archive(tmp_path / "list.bin", pickle.dumps([1, 2])))
    assert "something else than a state dict" in refusal(write_archive(tmp_path / "nested.bin", pickle.dumps({"model": {}})))
    assert "big-endian" in refusal(write_archive(tmp_path / "big.bin", pickle.dumps({}), {"byteorder": b"big"}))
    with zipfile.ZipFile(tmp_path / "other.bin", "w") as file:
        file.writestr("readme", "no weights")
    assert "no data.pkl" in refusal(tmp_path / "other.bin")
    (tmp_path / "pointer.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in refusal(tmp_path / "pointer.bin")


def test_every_cut_is_told_and_none_crashes(tmp_path: Path) -> None:
    content = (GOLDEN / "state.bin").read_bytes()
    for size in range(0, len(content) - 1, 97):
        (tmp_path / "cut.bin").write_bytes(content[:size])
        assert str(tmp_path / "cut.bin") in refusal(tmp_path / "cut.bin")
    described = zipfile.ZipFile(GOLDEN / "state.bin").read("state/data.pkl")
    for size in range(0, len(described), 7):
        assert "damaged" in refusal(write_archive(tmp_path / "cut.bin", described[:size]))


def one_tensor(path: Path, first: object, shape: tuple, strides: tuple, content: bytes) -> Path:
    """{"w": a tensor over a storage that is said to have four float32}; torch itself writes none that is wrong."""
    item = tensor_pickle("w", "0", "float32", 4, first, shape, strides)
    return write_archive(path, b"\x80\x02}" + item + b".", {"data/0": content})


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    content = np.arange(4, dtype="float32").tobytes()
    sound = read_pickle(one_tensor(tmp_path / "a.bin", 0, (2, 2), (2, 1), content))
    assert np.array_equal(read_all(sound["w"]), [[0, 1], [2, 3]])
    for wrong in ((1, (2, 2), (2, 1)), (0, (2, 3), (2, 1)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (1,)), (0, ("2",), (1,))):
        assert "damaged" in refusal(one_tensor(tmp_path / "a.bin", *wrong, content))
    assert "12 bytes, 4 values of float32" in refusal(one_tensor(tmp_path / "a.bin", 0, (2,), (1,), content[:12]))


def test_instructions_that_only_take_memory_are_refused(tmp_path: Path) -> None:
    """LONG_BINPUT with a large number makes room for as many objects; a bytearray of any length is made before it is read."""
    assert "the instruction LONG_BINPUT" in refusal(write_archive(tmp_path / "a.bin", b"\x80\x02}r\xff\xff\xff\xff."))
    assert "the instruction BYTEARRAY8" in refusal(write_archive(tmp_path / "a.bin", b"\x80\x05\x96" + b"\0" * 8 + b"."))
