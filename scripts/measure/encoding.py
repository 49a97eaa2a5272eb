"""Measure how fast rows become tokens: python scripts/measure/encoding.py FOLDER [--rows N] [--peer_python PYTHON] [--gigabytes N]

Makes a file of preference rows in FOLDER (lengths lognormal, sigma 0.6, mean 300 tokens a prompt and 120 an answer) and encodes it, each
time in a process of its own, with 1 and 2 processes, and once more where the store is there already. With the python of an environment
that has TRL, its DPOTrainer's dataset preparation is measured on the same file and tokenizer. Prints for each: seconds, rows a second, the
seconds of CPU of all its processes from start to end, and the peak of their memory together (Pss: what they share counts once).
--gigabytes: a file of that size instead, with 2 processes, without the peer; --filler: with so many characters in each row that nobody
reads, so that a large file has fewer tokens. Everything lies in FOLDER and is removed at the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "data" / "base_model"
MAX_LENGTH = 2048
OURS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from paddlealign.data.build import Building, open_or_build
from paddlealign.data.chunk import Encoder, EncodingSettings
from paddlealign.data.encoding import Limits
from paddlealign.data.records import RowReading
from paddlealign.data.sources import data_hash
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
tokenizer, paths = Tokenizer.load(sys.argv[2]), (Path(sys.argv[3]),)
limits, cache, workers = Limits(int(sys.argv[4])), Path(sys.argv[5]), int(sys.argv[6])
settings = EncodingSettings("preference", RowReading(), limits, None, None, "auto", "error")
encoder = Encoder(settings, tokenizer, load_template(tokenizer), paths)
began = time.perf_counter()
found = open_or_build("train", encoder, data_hash(paths), Building(cache, workers, False, print))
print("SECONDS", time.perf_counter() - began, len(found.store.examples))
"""
THEIRS = """
import sys, time
from types import SimpleNamespace
from datasets import load_dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
asked = DPOConfig(output_dir=sys.argv[5], max_length=int(sys.argv[4]), dataset_num_proc=int(sys.argv[6]), use_cpu=True, bf16=False)
began = time.perf_counter()
rows = load_dataset("json", data_files=sys.argv[3], split="train", cache_dir=sys.argv[5])
rows = DPOTrainer._prepare_dataset(SimpleNamespace(_tokenizer=tokenizer), rows, tokenizer, asked, "train")
print("SECONDS", time.perf_counter() - began, len(rows))
"""


def make_rows(path: Path, rows: int, size: float = float("inf"), filler: int = 0) -> int:
    """Write so many preference rows, or as many as have that size in bytes, in OpenAI's form; returns their number.

    filler: characters of a column that no form of rows reads.
    """
    sys.path.insert(0, str(ROOT))
    from paddlealign.data.tokenizer import Tokenizer

    random = np.random.default_rng(0)
    parts = np.array(["".join(pair) for pair in product("bdfgklmnprstvw", "aeiou")])
    words = np.array(["".join(random.choice(parts, random.integers(1, 5))) for _ in range(20_000)])
    rank = 1 / np.arange(1, len(words) + 1)
    draws = random.choice(words, 1 << 20, p=rank / rank.sum())
    per_word = len(Tokenizer.load(TOKENIZER).encode(" ".join(draws[:5000])).ids) / 5000

    def text(mean: float) -> str:
        count = max(1, int(random.lognormal(np.log(mean) - 0.6**2 / 2, 0.6) / per_word))
        start = random.integers(0, len(draws) - count)
        return " ".join(draws[start : start + count])

    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        while number < rows and written < size:
            prompt, chosen, rejected = text(300), text(120), text(120)
            row = {
                "prompt": [{"role": "user", "content": prompt}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
                **({"document": "x" * filler} if filler else {}),
            }
            written += file.write(json.dumps(row) + "\n")
            number += 1
    return number


def make_tokenizer(folder: Path) -> None:
    """The sample model's tokenizer as a tokenizer.json, which either side reads without sentencepiece."""
    sys.path.insert(0, str(ROOT))
    from paddlealign.data.tokenizer import Tokenizer

    folder.mkdir()
    for path in TOKENIZER.glob("*"):
        if path.name in ("tokenizer_config.json", "chat_template.jinja", "config.json"):
            shutil.copy(path, folder)
    (folder / "tokenizer.json").write_text(json.dumps(Tokenizer.load(TOKENIZER).model.description()))


def memory_of(root: int) -> int:
    """The bytes that a process and all that it started hold; what several share counts once."""
    total, waiting = 0, [root]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        try:
            told = (process / "smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in told if line.startswith("Pss:")) * 1024
            waiting += [int(child) for task in (process / "task").iterdir() for child in (task / "children").read_text().split()]
        except (OSError, StopIteration):
            continue
    return total


class Measured(NamedTuple):
    """Seconds, rows, seconds of CPU, and bytes of memory at most."""

    seconds: float
    rows: int
    cpu: float
    peak: int


def measure(name: str, python: str, script: str, path: Path, cache: Path, workers: int) -> Measured:
    """Run one way in a process of its own, print its figures and return them."""
    command = [python, "-c", script, str(ROOT), str(path.parent / "tokenizer"), str(path), str(MAX_LENGTH), str(cache), str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peak[0] = max(peak[0], memory_of(process.pid))

    watching = threading.Thread(target=watch)
    watching.start()
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    over.set()
    watching.join()
    if status:
        sys.exit(f"{name} failed")
    seconds, rows = next(line for line in output.splitlines() if line.startswith("SECONDS")).split()[1:]
    rate = int(rows) / float(seconds)
    work = used.ru_utime + used.ru_stime
    told = f"{float(seconds):8.1f} s {rate:9,.0f} rows/s {work:8.1f} s of CPU {peak[0] / 1e6:7,.0f} MB"
    print(f"{name:36} {told} ({int(rows):,} rows)", flush=True)
    return Measured(float(seconds), int(rows), work, peak[0])


def main() -> None:
    """Make the file, and measure each way once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--peer_python")
    parser.add_argument("--gigabytes", type=float)
    parser.add_argument("--filler", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    path, began = given.folder / "rows.jsonl", time.perf_counter()
    try:
        count = (
            make_rows(path, given.rows) if given.gigabytes is None else make_rows(path, sys.maxsize, given.gigabytes * 1e9, given.filler)
        )
        make_tokenizer(given.folder / "tokenizer")
        print(f"{count:,} rows, {path.stat().st_size / 1e6:,.0f} MB, made in {time.perf_counter() - began:.0f} s", flush=True)
        for workers in (1, 2) if given.gigabytes is None else (2,):
            cache = given.folder / f"store-{workers}"
            measure(f"PaddleAlign, dataset_num_proc {workers}", sys.executable, OURS, path, cache, workers)
        measure("PaddleAlign, a second start", sys.executable, OURS, path, cache, 2)
        for workers in (1, 2) if given.peer_python and given.gigabytes is None else ():
            measure(f"TRL, dataset_num_proc {workers}", given.peer_python, THEIRS, path, given.folder / f"trl-{workers}", workers)
    finally:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
