"""What each rank runs for test_generation.py: some models generate in every way under one layout, through predict.py's own loop.

    ranks_generation.py TENSOR PIPELINE DATA FOLDER

FOLDER/<model>, <way>.jsonl holds the answers as token ids, FOLDER/seen.json a hash of what each rank computed, and numbers of the first.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from paddlealign.machine import prepare

prepare()

import paddle

from paddlealign.arguments.fields import GenerationArguments, ParallelArguments
from paddlealign.models.incremental import RunningBatch
from paddlealign.models.sampling import GenerationSettings
from paddlealign.parallel.collect import gather_values
from paddlealign.parallel.pipeline import Chain
from paddlealign.parallel.topology import Topology
from paddlealign.recipes.predict import PromptRow, predict_rows
from paddlealign.recipes.processes import staged_forward, start_processes
from paddlealign.training.share import load_share
from tests.parity.test_generation import NEW_TOKENS, golden
from tests.small_runs import GOLDEN

MODELS = ("llama2_gqa", "qwen2_tied", "qwen3")
VOCABULARY = 99  # the models' own 96 and three more: no multiple of two
GOLDEN_WAYS = ("greedy", "greedy, n-grams", "beam 5, all", "groups 2, all", "contrastive, all")


class Ids:
    """In place of a tokenizer: a text is its token ids."""

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def ways(name: str) -> Iterator[tuple[str, GenerationSettings, list[list[int]]]]:
    """Ways of generating that have golden texts, and those that draw or end otherwise: title, settings, five prompts."""
    kinds = golden(name)
    for title in GOLDEN_WAYS:
        yield title, kinds[title].settings, kinds[title].prompts[1:]
    settings, prompts = kinds["greedy"].settings, kinds["greedy"].prompts[1:]
    yield "sampling", replace(settings, do_sample=True, temperature=1.3, top_p=0.9, top_k=30, num_return_sequences=3, seed=5), prompts
    ends = {"max_new_tokens": NEW_TOKENS, "holds_stop": lambda tokens: sum(tokens[-2:]) % 5 == 0}
    yield "greedy, stop strings", GenerationSettings(**ends), prompts
    yield "beam 3, stop strings", GenerationSettings(**ends, num_beams=3, num_return_sequences=2), prompts


def predict_all(topology: Topology, chain: Chain, folder: Path) -> None:
    """Generate with every model in every way; process 0 writes."""
    forward = staged_forward(chain, "float32")
    seen = {}
    for name in MODELS:
        model, _ = load_share(GOLDEN / name, "float32", VOCABULARY, False, topology)
        for title, settings, prompts in ways(name):
            output_file = str(folder / f"{name}, {title}.jsonl")
            generation = GenerationArguments(output_file=output_file, batch_size=3, num_return_sequences=settings.num_return_sequences)
            rows = [PromptRow({"row": number}, prompt, False, f"prompts:{number + 1}") for number, prompt in enumerate(prompts)]
            predict_rows(generation, model, rows, 0, settings, Ids(), topology, forward)
        batch = RunningBatch(model, [[5, 6, 7], [8]], forward)
        found = [*batch.read_prompts(), *batch.read_tokens([1, 2])]
        digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in found)).hexdigest()
        numbers = [tensor.astype("float64").flatten().tolist() for tensor in found]
        seen[name] = {"hashes": gather_values(topology.everyone, digest), "numbers": numbers}
    if topology.is_main:
        (folder / "seen.json").write_text(json.dumps(seen))
    gather_values(topology.everyone, 0)  # nobody leaves before the last is done


if __name__ == "__main__":
    tensor, pipeline, data, target = sys.argv[1:]
    paddle.set_device("cpu")
    predict_all(*start_processes(ParallelArguments(int(tensor), int(pipeline), int(data))), Path(target))
