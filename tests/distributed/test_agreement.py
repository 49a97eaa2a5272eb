"""Processes that were given different things are refused in one line, which names what differs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from paddlealign.parallel.topology import SINGLE
from paddlealign.recipes import output_folder
from paddlealign.recipes.output_folder import check_shared
from paddlealign.training.run_folder import remove_leftovers
from tests.distributed.launching import ROOT, launch, run_ranks
from tests.small_runs import GOLDEN

APART = """
import sys
from pathlib import Path

import paddle

from paddlealign.errors import UserError
from paddlealign.parallel.collect import agree
from paddlealign.parallel.topology import start
from paddlealign.recipes.output_folder import check_shared

paddle.set_device("cpu")
topology = start(1, 1, 2)
folder = Path(sys.argv[1])
agree(topology, {"seed": "1", "rows": "same"})
check_shared(topology, folder / "one")
one, other = {"seed": "1"}, {"seed": "1", "dev files": "x"}
for told in (({"seed": "0", "p": "0"}, {"seed": "1", "p": "1"}), (one, other), ({"seed": "1", "q": "y"}, one)):
    try:
        agree(topology, told[topology.rank])
    except UserError as error:
        print(error)
try:
    check_shared(topology, folder / str(topology.rank), seconds=0.5)
except UserError as error:
    print(error)
"""


def test_processes_with_other_files_or_another_folder_are_refused_by_name(tmp_path: Path) -> None:
    for rank, wrote in enumerate(run_ranks(APART, 2, tmp_path)):
        assert "process 1 was started with another seed than process 0: 1, not 0; another p than process 0: 1, not 0." in wrote
        assert "another dev files than process 0: x, not None." in wrote
        assert "another q than process 0: None, not y." in wrote
        assert f"output_dir: {tmp_path / str(rank)} is another folder for process 1 than for process 0" in wrote
        assert len(wrote.splitlines()) == 4
    assert list(tmp_path.iterdir()) == []


def test_processes_that_were_given_other_arguments_end_before_they_meet(tmp_path: Path) -> None:
    """One line names every key, degrees too, with which no group could be made."""
    keys = ["--model_name_or_path", str(GOLDEN / "llama2_gqa"), "--train_dataset_path", str(ROOT / "data" / "sft" / "train.json")]
    words = json.dumps([[*keys, "--output_dir", str(tmp_path / "output"), "--do_train"], ["--seed", "1", "--tensor_parallel_degree", "2"]])
    script = tmp_path / "both.py"
    script.write_text(
        "import os, sys\nfrom paddlealign.recipes.entry import main\n"
        f"words, more = {words}\nsys.exit(main('sft', words + (more if os.environ['PADDLE_TRAINER_ID'] == '1' else [])))\n",
        encoding="utf-8",
    )
    code, screen = launch([str(script)], 2, tmp_path / "log", 60, ())
    assert code == 1
    last = screen.rstrip().splitlines()[-1]
    assert "process 1 was started with another" in last and "seed than process 0: 1, not 42" in last
    assert "tensor_parallel_degree than process 0: 2, not 1" in last and "data_parallel_degree than process 0: 1, not 2" in last


def test_a_kill_while_output_dir_is_looked_at_leaves_nothing_that_the_next_start_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def gather(everyone: object, value: str | None) -> list[str]:
        if value is None:
            raise KeyboardInterrupt
        return [value]

    monkeypatch.setattr(output_folder, "gather_values", gather)
    with pytest.raises(KeyboardInterrupt):
        check_shared(replace(SINGLE, world=2), tmp_path / "output")
    [left] = [path.name for path in (tmp_path / "output").iterdir()]
    assert remove_leftovers(tmp_path / "output") == [left] and not list((tmp_path / "output").iterdir())
