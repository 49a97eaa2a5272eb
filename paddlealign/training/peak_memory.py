"""How much memory this process has taken at most."""

import resource

import paddle


def peak_memory_gib() -> float:
    """GiB of the GPU's memory that tensors took at most so far; on the CPU, of the machine's that the process took, all counted."""
    if paddle.get_device().startswith("gpu"):
        return round(paddle.device.cuda.max_memory_allocated() / 2**30, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)  # Linux counts in KiB
