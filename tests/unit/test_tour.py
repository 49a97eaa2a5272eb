"""The tour without a framework: its commands are ones that the commands take, and it is reused, stopped and broken off as it says."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paddlealign.arguments.parsing import parse
from paddlealign.recipes import tour
from paddlealign.recipes.tour_steps import Figure, Step, after, steps_of
from paddlealign.report.__main__ import _parser as report_parser
from tests.pages import ROOT

COMMANDS = {"sft_main.py": "sft", "dpo_main.py": "dpo", "predict.py": "predict"}


def test_the_commands_are_ones_that_a_user_may_type():
    steps = steps_of("output/tour")
    named = {step.name for step in steps}
    for step in steps:
        assert shlex.split(step.line) == ["python", *step.command]
        assert set(step.needs) <= named
        if step.command[0] in COMMANDS:
            parse(COMMANDS[step.command[0]], list(step.command[1:]))
        elif step.command[0] == "evaluate.py":
            parse("evaluate_judge", list(step.command[2:]))
        else:
            assert step.command[:2] == ("-m", "paddlealign.report")
            assert report_parser().parse_args(step.command[2:]).output == Path("output/tour/both.html")
    made = [path for step in steps for path in step.makes]
    assert len(set(made)) == len(made) and all(path.startswith("output/tour/") for path in made)


def test_it_takes_less_than_ten_minutes_by_its_own_estimate():
    assert sum(step.seconds for step in steps_of("output/tour")) < 480


def test_the_number_of_steps_reaches_every_run():
    for step in steps_of("output/tour", 2):
        assert ("--max_steps" in step.command) == (step.command[0] in ("sft_main.py", "dpo_main.py"))
        if "--max_steps" in step.command:
            assert step.command[step.command.index("--max_steps") + 1] == "2"


def test_what_follows_from_a_step_is_done_anew_with_it():
    assert after(steps_of("x"), "dpo_beta") == {"dpo_beta", "page"}
    assert after(steps_of("x"), "sft") >= {"answers_sft", "dpo", "dpo_beta", "answers_dpo", "judge", "page", "chat"}


# A tour of three steps that take no time.


def write(path: Path, text: str) -> tuple[str, ...]:
    return ("-c", f"open({str(path)!r}, 'w').write({text!r})")


def small_tour(folder: Path, last: str = "print(*map(str.strip, __import__('sys').stdin), sep='|')") -> list[Step]:
    metrics = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 0.5}\n'
    (folder / "run").mkdir(parents=True, exist_ok=True)
    (folder / tour.STATE).touch()
    (folder / tour.STATE).write_text((folder / tour.STATE).read_text() or "{}")
    first, second = folder / "run" / "metrics.jsonl", folder / "answers"
    figures = (Figure("loss", "lower is better"), Figure("never", "is not logged"))
    return [
        Step("a", "the first", ("It writes.",), write(first, metrics), (str(first),), (), 1, run=str(folder / "run"), figures=figures),
        Step(
            "b",
            "the second",
            (),
            write(second, '{"src": "One?", "output": " Two. "}\n'),
            (str(second),),
            ("a",),
            1,
            answers=(("x", str(second)),),
        ),
        Step("c", "the third", (), ("-c", last), (), ("a",), 1, talks=True),
    ]


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)


def test_each_step_is_told_run_and_shown(tmp_path: Path, capfd: pytest.CaptureFixture):
    steps = small_tour(tmp_path)
    assert tour._walk(tmp_path, steps, asks=False) == 0
    said = capfd.readouterr().out
    for text in (
        "Step 1 of 3: the first",
        "It writes.",
        f"    {steps[0].line}\n",
        "loss: 2.000 at first, 0.500 at the end",
        "lower is better",
    ):
        assert text in said
    assert "is not logged" not in said
    assert "    One?\n        x: Two.\n" in said
    assert "|".join((*tour.QUESTIONS, "/exit")) in said
    assert json.loads((tmp_path / tour.STATE).read_text()) == {step.name: step.line for step in steps[:2]}


def test_what_is_done_is_reused_and_what_follows_from_a_new_step_is_not(tmp_path: Path, capfd: pytest.CaptureFixture):
    assert tour._walk(tmp_path, small_tour(tmp_path), asks=False) == 0
    capfd.readouterr()
    assert tour._walk(tmp_path, small_tour(tmp_path), asks=False) == 0
    assert capfd.readouterr().out.count("Done before, reused: ") == 2
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert tour._walk(tmp_path, small_tour(tmp_path), asks=False) == 0
    assert "Done before" not in capfd.readouterr().out


def test_a_step_that_fails_ends_the_tour_and_the_next_start_goes_on_with_it(tmp_path: Path, capfd: pytest.CaptureFixture):
    assert tour._walk(tmp_path, small_tour(tmp_path, "raise SystemExit('error: no such model')"), asks=False) == 1
    found = capfd.readouterr()
    assert "error: no such model" in found.err and "step 3 ended with exit code 1" in found.out and "the same command goes on" in found.out
    assert tour._walk(tmp_path, small_tour(tmp_path), asks=False) == 0
    assert capfd.readouterr().out.count("Done before") == 2


def test_with_a_terminal_it_waits_and_leaves_the_chat_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "")
    assert tour._walk(tmp_path, small_tour(tmp_path, "print('mine')"), asks=True) == 0
    assert len(asked) == 3 and all("Enter" in it for it in asked)
    assert tour.QUESTIONS[0] not in capfd.readouterr().out


def test_ctrl_c_ends_the_command_and_the_tour(tmp_path: Path):
    """As a terminal has it: all processes of the group are interrupted, and the command says how it ends before the tour does."""
    waits = (
        "import sys, time\ntry:\n    print('begun', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('saved', flush=True)\n    sys.exit(130)"
    )
    script = (
        "import sys\nfrom pathlib import Path\nfrom paddlealign.recipes import tour\nfrom tests.unit.test_tour import small_tour\n"
        f"folder = Path({str(tmp_path)!r})\ntour.steps_of = lambda *_: small_tour(folder, {waits!r})\n"
        "sys.exit(tour.main(['--output_dir', str(folder)]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout
        while process.stdout.readline() != "begun\n":
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out.endswith("saved\n")
    assert error == "\nThe tour was stopped; the same command goes on with this step.\n"


def test_ctrl_c_between_two_steps_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    monkeypatch.setattr(tour, "steps_of", lambda *_: small_tour(tmp_path))
    assert tour._run(tmp_path, None, asks=True) == 130
    assert "The tour was stopped" in capfd.readouterr().err


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "dpo").mkdir()
    assert tour.main(["--yes", "--output_dir", str(tmp_path)]) == 1
    assert f"error: --output_dir: {tmp_path} exists already and holds no tour." in capsys.readouterr().err
    assert [it.name for it in tmp_path.iterdir()] == ["dpo"]
    for text in ("{", "[]"):
        (tmp_path / tour.STATE).write_text(text)
        assert tour.main(["--yes", "--output_dir", str(tmp_path)]) == 1
        assert "cannot be read" in capsys.readouterr().err


def test_another_folder_than_ours_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    assert tour.main(["--yes"]) == 1
    assert f"error: sft_main.py is not in {tmp_path}" in capsys.readouterr().err


def test_a_number_of_steps_that_is_none_is_told(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        tour.main(["--steps", "0"])
    assert "0: a whole number from 1 is needed" in capsys.readouterr().err
