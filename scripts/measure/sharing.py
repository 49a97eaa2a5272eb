"""Measure the memory of each process that holds a share of a model: python -m scripts.measure.sharing FOLDER

Makes a random LLaMA checkpoint of 1 GB in FOLDER (it is kept and used again), reads it as float32 on four processes under several layouts,
and saves it again. Prints for each process the size of its share, the peak of the resident memory above what it was after the imports, as a
share of that size, and the peak of saving above the loaded share, beside the size of the largest tensor.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from scripts.measure.loading import SHAPE, make, reset_peak, resident
from tests.distributed.launching import ROOT, run_ranks

LAYERS = 9
# tensor, pipeline, data, shards, stage of sharding
LAYOUTS = {
    "tensor 2 x pipeline 2": (2, 2, 1, 1, 0),
    "tensor 4": (4, 1, 1, 1, 0),
    "data 4, sharding stage 3": (1, 1, 4, 4, 3),
}


def measure(checkpoint: Path, degrees: tuple[int, ...], copy: Path) -> None:
    """What one process does: read its share, save with the others, and print a line of JSON."""
    from paddlealign.machine import prepare

    prepare()
    from paddlealign.models.config import read_config
    from paddlealign.parallel.collect import everywhere
    from paddlealign.parallel.topology import start
    from paddlealign.training.checkpoint import save_policy
    from paddlealign.training.share import load_share

    topology = start(*degrees[:4])
    vocab_size = read_config(checkpoint).vocab_size
    load_share(ROOT / "tests" / "parity" / "golden" / "llama1", "float32", 96, False, topology, degrees[4])  # what Paddle makes once
    before = reset_peak()
    model, sharding = load_share(checkpoint, "float32", vocab_size, False, topology, degrees[4])
    peak = resident("VmHWM") - before
    held = [parameter.size * 4 for parameter in model.parameters() if parameter._is_initialized()]
    everywhere(topology, True)
    loaded = reset_peak()
    save_policy(copy, model, {}, topology, sharding)
    saving = resident("VmHWM") - loaded
    everywhere(topology, True)
    print(json.dumps([sum(held), peak, saving]))


def main(folder: Path) -> None:
    """Make the checkpoint where it is missing, and measure each layout."""
    checkpoint = folder / "shared"
    if not (checkpoint / "config.json").exists():
        shutil.rmtree(checkpoint, ignore_errors=True)
        make(checkpoint, SHAPE, LAYERS, "bfloat16", 1 << 40)
    largest = SHAPE["vocab_size"] * SHAPE["hidden_size"] * 4
    whole = 2 * (checkpoint / "model.safetensors").stat().st_size
    print(f"the whole model in float32: {whole / 1e9:.2f} GB, its largest tensor: {largest / 1e9:.2f} GB")
    print("| layout | process | share, GB | peak of reading / share | peak of saving, GB |")
    print("|---|---:|---:|---:|---:|")
    for name, degrees in LAYOUTS.items():
        with tempfile.TemporaryDirectory(dir=folder) as copy:
            told = run_ranks(Path(__file__), 4, checkpoint, ",".join(map(str, degrees)), copy, timeout=600)
        for rank, text in enumerate(told):
            share, peak, saving = json.loads(text.splitlines()[-1])
            print(f"| {name} | {rank} | {share / 1e9:.2f} | {peak / share:.3f} | {saving / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(Path(sys.argv[1]), tuple(int(word) for word in sys.argv[2].split(",")), Path(sys.argv[3]))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        sys.exit(__doc__)
