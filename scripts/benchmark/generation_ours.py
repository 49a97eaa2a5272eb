"""``python -m scripts.benchmark.generation_ours SPEC.json``: our generation of the common prompts, timed without start and loading."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from paddlealign.machine import prepare
from scripts.benchmark.peers.timing import write_timed
from scripts.benchmark.workload import END


def main(spec: dict) -> None:
    """Generate as the spec says."""
    prepare()
    from paddlealign.models.generation import generate
    from paddlealign.models.sampling import GenerationSettings
    from paddlealign.models.weights import load_model

    model = load_model(spec["model"], "float32")
    greedy = GenerationSettings(stop_ids=(END,), seed=spec["seed"])
    settings = replace(greedy, do_sample=True, top_k=50, top_p=0.9) if spec["sampling"] else greedy

    def answers(new_tokens: int) -> list[list[int]]:
        found = generate(model, spec["prompts"], replace(settings, max_new_tokens=new_tokens), spec["batch"])
        return [text for [text] in found]

    write_timed(spec, answers)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
