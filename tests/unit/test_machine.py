"""What is set before Paddle is imported, for every kind of machine; and that it takes effect in a real process."""

import os
import sys

import pytest

from paddlealign.errors import UserError
from paddlealign.machine import (
    available_cores,
    fast_path_is_locked,
    flush_subnormals,
    keep_freed_memory,
    prepare,
    product_threads,
    settings,
)

AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: EPYC\nflags\t\t: fpu sse4_2 avx avx2 fma\n"


@pytest.mark.parametrize(
    ("cpuinfo", "locked"),
    [
        (AMD, True),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), False),
        (AMD.replace("avx2 ", ""), False),
        ("", False),
    ],
)
def test_only_amd_with_avx2_needs_the_switch(cpuinfo: str, locked: bool):
    assert fast_path_is_locked(cpuinfo) is locked


@pytest.mark.parametrize(("here", "there", "threads"), [(1, 0, "8"), (2, 0, "4"), (3, 0, "2"), (16, 0, "1"), (2, 2, "4")])
def test_ranks_on_one_machine_share_its_cores(here: int, there: int, threads: str):
    endpoints = [f"10.0.0.2:{port}" for port in range(there)] + [f"10.0.0.1:{port}" for port in range(here)]
    environ = {"PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints), "PADDLE_CURRENT_ENDPOINT": endpoints[-1]}
    assert settings(environ, 8, locked=False)["MKL_NUM_THREADS"] == threads


@pytest.mark.parametrize("environ", [{}, {"PADDLE_TRAINER_ENDPOINTS": ""}, {"PADDLE_CURRENT_ENDPOINT": "10.0.0.1:1"}])
def test_one_process_takes_all_cores(environ: dict[str, str]):
    assert settings(environ, 8, locked=False)["MKL_NUM_THREADS"] == "8"


@pytest.mark.parametrize("name", ["MKL_NUM_THREADS", "OMP_NUM_THREADS", "FLAGS_paddle_num_threads"])
def test_any_number_of_threads_that_the_user_set_stays(name: str):
    assert "MKL_NUM_THREADS" not in settings({name: "3"}, 8, locked=False)


def test_nothing_that_is_set_is_overridden():
    environ = {"MKL_NUM_THREADS": "3", "MKL_DEBUG_CPU_TYPE": "4", "GLOG_v": "2", "GLOG_minloglevel": "0", "KMP_BLOCKTIME": "9"}
    assert settings(environ, 8, locked=True) == {}
    assert settings({}, 8, locked=True) == {
        "MKL_NUM_THREADS": "8",
        "MKL_DEBUG_CPU_TYPE": "5",
        "GLOG_v": "0",
        "GLOG_minloglevel": "2",
        "KMP_BLOCKTIME": "0",
    }


def test_views_that_are_copies_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "paddle", raising=False)
    monkeypatch.setenv("FLAGS_use_stride_kernel", "0")
    with pytest.raises(UserError, match="FLAGS_use_stride_kernel is off"):
        prepare()


@pytest.mark.parametrize(("environ", "threads"), [({"MKL_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3), ({"OMP_NUM_THREADS": "2"}, 2)])
def test_the_heads_have_as_many_threads_as_products(environ: dict[str, str], threads: int):
    assert product_threads(environ) == threads
    assert product_threads({}) == available_cores()


def test_the_user_s_malloc_settings_stay():
    assert keep_freed_memory({"MALLOC_TRIM_THRESHOLD_": "1"}) is False


def test_cores_follow_the_affinity():
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_a_fresh_process_imports_paddle_in_silence_and_says_what_was_chosen(run_command):
    script = "import paddlealign.machine as m; print(m.prepare()); import paddle; print(m.prepare())"
    code, out, err = run_command(["-c", script], environment={"OMP_NUM_THREADS": "1"})
    first, second = out.splitlines()
    assert code == 0
    assert err == ""
    assert first.startswith(f"machine: {available_cores()} cores, OMP_NUM_THREADS=1")
    assert second == "machine: left as it is, Paddle was imported before"


def test_freed_memory_stays_with_the_process(run_command):
    """A block of 64 MB is written and freed: as installed the kernel gets it back, afterwards it waits for the next tensor."""
    script = (
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "import paddlealign.machine as m\n"
        "assert sys.argv[1] == 'as installed' or m.keep_freed_memory({})\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]\n"
        "resident = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "before, block = resident(), libc.malloc(64 << 20)\n"
        "ctypes.memset(block, 1, 64 << 20); libc.free(block)\n"
        "print((resident() - before) >> 20)\n"
    )
    kept, given_back = (int(run_command(["-c", script, mode]).out) for mode in ("kept", "as installed"))
    assert kept >= 60
    assert given_back <= 8


def test_freed_memory_is_given_back_when_that_is_asked(run_command):
    """Small blocks in a heap that keeps what is freed, each with one behind it that stays."""
    script = (
        "from pathlib import Path\n"
        "import paddlealign.machine as m\n"
        "assert m.keep_freed_memory({})\n"
        "resident = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "blocks = [bytearray(100_000) for _ in range(1000)]\n"
        "del blocks[::2]\n"
        "before = resident()\n"
        "m.give_back_freed_memory()\n"
        "print((before - resident()) >> 20)\n"
    )
    assert int(run_command(["-c", script]).out) >= 40


def test_subnormal_numbers_are_zero_in_every_thread(run_command):
    script = (
        "import paddlealign.machine as m, threading, numpy as np\n"
        "small = np.full(1000, 1e-30, np.float32)\n"
        "assert (small * np.float32(1e-10)).any()\n"
        "print(m.prepare())\n"
        "import paddle\n"
        "def gone():\n"
        "    assert not (small * np.float32(1e-10)).any()\n"
        "    tensor = paddle.to_tensor(small)\n"
        "    assert not (tensor * 1e-10).any()\n"
        "    table = tensor.reshape([20, 50])\n"
        "    assert not paddle.matmul(table, paddle.full([50, 20], 1e-12)).any()\n"
        "    found.append(np.finfo(np.float32).tiny)\n"
        "found = []\n"
        "gone()\n"
        "thread = threading.Thread(target=gone)\n"
        "thread.start(); thread.join()\n"
        "assert len(found) == 2\n"
    )
    code, out, err = run_command(["-W", "error::UserWarning:numpy", "-c", script])
    assert (code, err) == (0, "") and "subnormal numbers are zero" in out


def test_subnormals_stay_where_the_processor_is_another():
    assert flush_subnormals("aarch64") is False
