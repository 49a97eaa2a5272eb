"""Make tests/parity/golden/pickles/: tiny ``.bin`` files by torch, and what is in them.

Needs torch, which this project does not depend on; run it by hand where it is installed:

    python scripts/golden/pickles.py tests/parity/golden/pickles

state.bin is a state dict with every float dtype, shared storage (tied weights), a transposed tensor, a view into a larger storage, a
scalar, an empty tensor, parameters and a buffer; state.safetensors holds the same values, each tensor for itself. legacy.bin is the format
before torch 1.6, whole_module.bin a pickled module, deflated.bin the archive compressed.
"""

import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file


def state() -> OrderedDict:
    """The tensors, by what is special about them."""
    torch.manual_seed(0)
    table = torch.randn(6, 4)
    named = OrderedDict(
        float32=torch.randn(3, 5),
        float16=torch.randn(4, 2).half(),
        bfloat16=torch.randn(2, 7).bfloat16(),
        embedding=table,
        tied=table,
        transposed=torch.randn(5, 3).t(),
        transposed_bfloat16=torch.randn(5, 3).bfloat16().t(),
        column=torch.randn(5, 3)[:, 1],
        view=torch.randn(50)[10:22].view(3, 4),
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 4),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        counter=torch.tensor([1, 2, 3]),
    )
    named._metadata = OrderedDict({"": {"version": 1}})  # as module.state_dict() has it
    return named


def main(folder: Path) -> None:
    """Write every file."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = state()
    torch.save(tensors, folder / "state.bin")
    torch.save(tensors, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), folder / "whole_module.bin")
    with zipfile.ZipFile(folder / "state.bin") as source, zipfile.ZipFile(folder / "deflated.bin", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, folder / "state.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
