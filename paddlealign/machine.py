"""The process before Paddle is imported: threads, MKL's path on AMD, memory, and Paddle's chatter.

Paddle reads these settings when it is imported, and as installed it multiplies on one thread of a slow path. So the commands
call `prepare` first of all. What the user has set in the environment is never changed.
"""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from paddlealign.errors import UserError

THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "FLAGS_paddle_num_threads")
MALLOC_VARIABLES = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
_VIEWS = "FLAGS_use_stride_kernel"

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8

# glibc's fenv_t on x86-64 ends with the register MXCSR, in which two bits say that subnormal results and operands are zero.
_FENV_BYTES, _MXCSR, _FLUSH_TO_ZERO, _SUBNORMALS_ARE_ZERO = 32, 28, 1 << 15, 1 << 6


def prepare(quiet: bool = True) -> str:
    """Set the process up for Paddle and return one line that tells what was chosen. Call it before Paddle is imported.

    quiet: keep what Paddle says of itself to errors.
    """
    if "paddle" in sys.modules:
        return "machine: left as it is, Paddle was imported before"
    if quiet:
        warnings.filterwarnings("ignore", message="No ccache found", category=UserWarning)
    if os.environ.get(_VIEWS, "1").lower() in ("0", "false"):
        raise UserError(f"{_VIEWS} is off, and gradients are added up through views of tensors, which need it. Unset it.")
    chosen = settings(os.environ, available_cores(), fast_path_is_locked(_text_of("/proc/cpuinfo")), quiet)
    os.environ.update(chosen)
    kept = keep_freed_memory(os.environ)
    flushed = flush_subnormals(platform.machine())
    threads = next(f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ)
    path = os.environ.get("MKL_DEBUG_CPU_TYPE")
    parts = [f"{available_cores()} cores", threads, f"MKL_DEBUG_CPU_TYPE={path}" if path else "", "freed memory is kept" if kept else ""]
    parts.append("subnormal numbers are zero" if flushed else "")
    return "machine: " + ", ".join(part for part in parts if part)


def settings(environ: Mapping[str, str], cores: int, locked: bool, quiet: bool = True) -> dict[str, str]:
    """The variables to set, for an environment, the number of cores, and whether MKL locks its fast path here. quiet: see ``prepare``.

    The ranks that the launcher starts on one machine share its cores. MKL_NUM_THREADS and not OMP_NUM_THREADS: it gives the same
    speed, and Paddle answers the latter with two lines of warning. An environment that names any number of threads keeps it.
    """
    chosen = {"GLOG_v": "0", "GLOG_minloglevel": "2"} if quiet else {}  # errors only; Paddle's C++ part logs to stderr
    chosen["KMP_BLOCKTIME"] = "0"  # else MKL's threads spin for 0.2 s after each product, on the cores of ``models.threads``
    if not any(name in environ for name in THREAD_VARIABLES):
        chosen["MKL_NUM_THREADS"] = str(max(1, cores // ranks_here(environ)))
    if locked:
        chosen["MKL_DEBUG_CPU_TYPE"] = "5"
    return {name: value for name, value in chosen.items() if name not in environ}


def product_threads(environ: Mapping[str, str]) -> int:
    """How many threads MKL uses for a product of matrices under this environment: what the first variable says that it heeds."""
    told = (environ.get(name, "") for name in THREAD_VARIABLES[:2])
    return next((max(1, int(value)) for value in told if value.isdecimal()), available_cores())


def ranks_here(environ: Mapping[str, str]) -> int:
    """How many of the processes that paddle.distributed.launch started are on this machine; 1 without it."""
    hosts = [endpoint.rsplit(":", 1)[0] for endpoint in environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")]
    return max(1, hosts.count(environ.get("PADDLE_CURRENT_ENDPOINT", "").rsplit(":", 1)[0]))


def fast_path_is_locked(cpuinfo: str) -> bool:
    """Whether MKL needs to be told of AVX2. The MKL inside Paddle's wheel looks at the maker's name; cpuinfo: /proc/cpuinfo."""
    fields = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    named = {name.strip(): value.split() for name, value in fields.items()}
    return named.get("vendor_id") == ["AuthenticAMD"] and "avx2" in named.get("flags", [])


def available_cores() -> int:
    """The cores that this process may use: its affinity, and a container's quota, whichever is less."""
    cores = len(os.sched_getaffinity(0))
    quota = _text_of("/sys/fs/cgroup/cpu.max").split()  # "200000 100000": microseconds of work per microseconds of time
    if len(quota) == 2 and quota[0].isdecimal():
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def keep_freed_memory(environ: Mapping[str, str]) -> bool:
    """Tell glibc to keep large freed blocks for the next tensor, and say whether it did. A user's own malloc settings stay.

    By default every large tensor is fresh memory from the kernel, and each of its pages costs a fault when it is first written.
    """
    if any(name in environ for name in MALLOC_VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    # glibc before 2.35 refuses thresholds above 32 MB; there no block at all is mapped on its own.
    reused = mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_MAX, 0)
    # One heap for all threads: in those of their own, large blocks are fresh memory again.
    return bool(reused and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1) and mallopt(_M_ARENA_MAX, 1))


def give_back_freed_memory() -> None:
    """Give the system what is freed, once: after work on many small objects, whose holes in the heap no tensor fits into."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def flush_subnormals(machine: str) -> bool:
    """Take numbers below float32's 1.2e-38 (float64's 2.2e-308) as zero, in this thread and in those that it starts. Say whether it is so.

    They carry less than full precision, and a processor needs a hundred times longer for each. They do come up: in the gradients of pairs
    that are told apart already, and in Adam's moments of tokens that no row has any more. machine: as ``platform.machine`` names it.
    """
    if machine != "x86_64":
        return False
    environment = ctypes.create_string_buffer(_FENV_BYTES)
    try:
        library = ctypes.CDLL("libm.so.6")
    except OSError:  # another C library
        return False
    if library.fegetenv(environment):
        return False
    register = int.from_bytes(environment.raw[_MXCSR:], "little") | _FLUSH_TO_ZERO | _SUBNORMALS_ARE_ZERO
    environment = ctypes.create_string_buffer(environment.raw[:_MXCSR] + register.to_bytes(4, "little"), _FENV_BYTES)
    warnings.filterwarnings("ignore", message="The value of the smallest subnormal", category=UserWarning)  # NumPy sees it
    return not library.fesetenv(environment)


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
