"""Measure generation beside transformers and PaddleNLP on the same weights and prompts, and write a part of the page.

    python -m scripts.benchmark.generation docs/performance.md            64 prompts a set, batches of 1, 8 and 32, three rounds
    python -m scripts.benchmark.generation docs/performance.md --quick    8 prompts, a batch of 8, one round

Ours runs twice: as a loop in a process like the others, and as predict.py, started, read and written as its users have it.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from paddlealign.machine import available_cores
from scripts.benchmark.environments import trl_python, versions
from scripts.benchmark.generation_page import Case, Run, different_rows, write_part
from scripts.benchmark.measure import Measured, measure
from scripts.benchmark.run import LIMIT_SECONDS, Plan, prepare_files
from scripts.benchmark.systems import PEERS, ROOT
from scripts.benchmark.workload import FIRST_WORD, SEED, SHAPES, SPREAD, VOCABULARY

LONGEST_PROMPT = 896


@dataclass(frozen=True)
class Place:
    """Where things are. peers: the interpreter of transformers' environment. threads: for each system."""

    folder: Path
    peers: Path
    threads: int


def draw_prompts(mean: int, count: int) -> list[list[int]]:
    """Random prompts of lognormal lengths, always the same for a mean; of a larger count the first ones are those of a smaller."""
    random = np.random.default_rng([SEED, mean])
    prompts = []
    for _ in range(count):
        size = int(np.clip(np.rint(random.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD)), 2, LONGEST_PROMPT))
        prompts.append(random.integers(FIRST_WORD, VOCABULARY, size).tolist())
    return prompts


def answer_ids(text: str) -> list[int]:
    """The token ids of an answer that predict.py wrote; special tokens are not in it."""
    return [int(word[1:]) for word in text.split()]


def main(argv: list[str]) -> int:
    """Run, write the part of the page; 1 where a peer's greedy texts were others."""
    parser = argparse.ArgumentParser(
        "python -m scripts.benchmark.generation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="the page whose tables are written")
    parser.add_argument("--quick", action="store_true", help="one batch size, few prompts, one round")
    parser.add_argument("--folder", type=Path, default=Path(".benchmark"), help="where the model, rows and runs are kept")
    parser.add_argument("--peers", type=Path, help="transformers' environment, TRL's; in the folder unless it is given")
    parser.add_argument("--prompts", type=int, help="prompts of a set")
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes")
    parser.add_argument("--new_tokens", type=int, help="most new tokens of a prompt")
    parser.add_argument("--rounds", type=int, help="how often each system is run")
    parser.add_argument("--threads", type=int, default=available_cores(), help="for each system; all cores unless it is given")
    told = parser.parse_args(argv)
    folder = told.folder.resolve()
    place = Place(folder, trl_python((told.peers or folder / "trl").resolve()), told.threads)
    count, rounds = told.prompts or (8 if told.quick else 64), told.rounds or (1 if told.quick else 3)
    new = told.new_tokens or (16 if told.quick else 96)
    cases = [
        Case(name, batch, sampling, new, count)
        for name in (["short"] if told.quick else ["common", "short"])
        for batch in told.batches or ([8] if told.quick else [1, 8, 32])
        for sampling in ([False] if told.quick else [False, True])
    ]
    prepare_files(folder, Plan([], 0, rounds, 0, [], told.threads))
    runs = [run for case in cases for run in run_case(place, case, rounds)]
    command = f"python -m scripts.benchmark.generation docs/performance.md{' --quick' if told.quick else ''} --prompts {count}"
    batches = " ".join(dict.fromkeys(str(case.batch) for case in cases))
    write_part(told.page, runs, f"{command} --batches {batches} --new_tokens {new} --rounds {rounds}", versions(), told.threads)
    return 1 if any(run.different for run in runs) else 0


def run_case(place: Place, case: Case, rounds: int) -> list[Run]:
    """All systems in turn, round after round, each in a fresh process."""
    output = place.folder / "runs" / f"generation_{case.set}"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    prompts = draw_prompts(SHAPES[case.set].prompt, case.prompts)
    runs: list[Run] = []
    expected: list[list[int]] = []
    for number in range(rounds):
        for system in ("ours", "predict", "transformers", "paddlenlp"):
            found, ids, seconds, prompt_seconds, cpu = _run(place, case, system, prompts, output)
            expected = expected or ids
            different = 0 if case.sampling else different_rows(ids, expected)
            tokens = sum(map(len, ids))
            run = Run(case, system, number, tokens, seconds, prompt_seconds, cpu, found.peak, found.other_load, different)
            print(f"round {number + 1}, {asdict(case)}, {system}: {tokens / seconds:.1f} tokens/s, {different} rows differ", flush=True)
            runs.append(run)
    return runs


def _run(
    place: Place, case: Case, system: str, prompts: Sequence[Sequence[int]], output: Path
) -> tuple[Measured, list[list[int]], float, float, float]:
    """One run: what was measured from outside, its texts, seconds in all and of the prompts alone (0: not known), processor seconds."""
    log = output / f"{system}.jsonl"
    spec = {**asdict(case), "prompts": prompts, "output": str(log), "seed": SEED, "threads": place.threads}
    spec["model"] = str(place.folder / ("paddlenlp_model" if system == "paddlenlp" else "model"))
    file = output / f"{system}.json"
    file.write_text(json.dumps(_predict_arguments(spec, output) if system == "predict" else spec), encoding="utf-8")
    words = {
        "ours": [sys.executable, "-m", "scripts.benchmark.generation_ours"],
        "predict": [sys.executable, str(ROOT / "predict.py")],
        "transformers": [str(place.peers), str(PEERS / "transformers_generation.py")],
        "paddlenlp": [sys.executable, str(PEERS / "paddlenlp_generation.py")],
    }[system]
    threads = {"MKL_NUM_THREADS" if system in ("ours", "predict") else "OMP_NUM_THREADS": str(place.threads)}
    output.joinpath(f"{system}.jsonl").unlink(missing_ok=True)
    environ = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    found = measure([*words, str(file)], {**environ, **threads, "HF_HUB_OFFLINE": "1"}, ROOT, log, output / f"{system}.txt", LIMIT_SECONDS)
    if system == "predict":
        return found, [answer_ids(line["output"]) for line in found.lines], found.ends[-1], 0.0, found.cpu[-1]
    [line] = found.lines
    return found, line["ids"], line["seconds"], line["prompt_seconds"], line["cpu"]


def _predict_arguments(spec: dict, output: Path) -> dict:
    """predict.py's argument file for a case, whose rows are written beside it."""
    rows = output / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": " ".join(f"w{token}" for token in ids)}) + "\n" for ids in spec["prompts"]), "utf-8")
    return {
        "model_name_or_path": spec["model"],
        "data_file": str(rows),
        "output_file": spec["output"],
        "batch_size": spec["batch"],
        "src_length": LONGEST_PROMPT + 4,
        "max_length": spec["new_tokens"],
        "decode_strategy": "sampling" if spec["sampling"] else "greedy_search",
        "top_k": 50,
        "top_p": 0.9,
        "temperature": 1.0,
        "dtype": "float32",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
