"""Every command of the README and of the guides is run as it stands, on a few of the sample's rows and for two steps; or says why not."""

import io
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from evaluate import TASKS
from paddlealign.recipes.convert import main as convert
from paddlealign.recipes.entry import main
from paddlealign.report.__main__ import main as report
from scripts import api_pages
from tests.pages import ROOT, Command, commands, saved_files
from tests.small_home import make_home

GUIDES = (
    "first_run", "own_data", "own_model", "choose_objective", "go_parallel", "read_the_curves", "serve",
    "from_paddlenlp", "from_trl", "from_trinity_rft", "from_deepspeed_chat", "from_dpo_paper",
)  # fmt: skip
NAMES = ("README.md", *(f"docs/{name}.md" for name in GUIDES))
# Commands that another test runs, or that only prepare a shell.
ELSEWHERE = {
    "bash scripts/quickstart.sh": "tests/end_to_end/test_quickstart.py",
    "bash scripts/test.sh": "it runs this test",
    "bash scripts/setup.sh requirements.txt": "tests/end_to_end/test_setup.py",
    "source .venv/bin/activate": "the tests run in it",
}
NOT_HERE = ("GPU only", "not run here: ")
# What makes a command short: said behind its own keys, where the last one counts.
SHORT = {
    "sft": ["--max_steps", "2", "--per_device_train_batch_size", "2", "--disable_tqdm", "true"],
    "predict": ["--max_length", "4"],
    "evaluate_compare": ["--max_length", "4"],
}
SHORT |= {"reward": SHORT["sft"], "dpo": [*SHORT["sft"], "--sample_max_length", "4", "--n_eval_model_samples", "2"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the repository's, with few rows."""
    return make_home(tmp_path_factory.mktemp("home"))


def command_of(words: list[str]) -> tuple[str, list[str]]:
    """What a command line starts: the name of our command, and the words behind it."""
    if words[:2] == ["python", "-m"]:
        return words[2].removeprefix("paddlealign."), words[3:]
    script = words[1].removesuffix(".py").removesuffix("_main")
    return (TASKS[words[2]], words[3:]) if script == "evaluate" else (script, words[2:])


def run(command: Command, home: Path) -> None:
    """Run a page's command in this process where it is ours, and see that it ends well."""
    words = shlex.split(command.words)
    if words[0] == "tail":
        assert subprocess.run(words, cwd=home, check=True, capture_output=True, timeout=30).stdout
        return
    name, rest = command_of(words)
    if name == "paddle.distributed.launch":
        done = subprocess.run(
            [sys.executable, *words[1:], *SHORT["sft"]], cwd=home, capture_output=True, text=True, timeout=280,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    elif name == "convert":
        assert convert(rest) == 0
    elif name == "report":
        assert report(rest) == 0
    elif name == "scripts.api_pages":
        assert api_pages.main(Path(rest[0])) == 0
    else:
        assert main(name, [*rest, *SHORT.get(name, ())]) == 0


def not_run(command: Command) -> bool:
    """Whether a command says that it is not run, or another test runs it."""
    return command.words in ELSEWHERE or command.remark.startswith(NOT_HERE)


# The README comes first: the guides go on with the models that it trains.
@pytest.mark.parametrize("name", NAMES)
def test_the_commands_run(name: str, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello!\n/exit\n"))
    for file, text in saved_files(ROOT / name).items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text(text, encoding="utf-8")
    found = commands(ROOT / name)
    assert found
    for command in found:
        if not_run(command):
            continue
        try:
            run(command, home)
        except AssertionError as error:
            pytest.fail(f"{name}, line {command.line}: {command.words}\n{capfd.readouterr()}\n{error}")


def test_every_guide_is_run_and_every_other_command_of_it_says_why_not():
    pages = {path.stem for path in (ROOT / "docs").glob("from_*.md")}
    assert pages <= set(GUIDES)
    for words, where in ELSEWHERE.items():
        assert any(words == command.words for name in NAMES for command in commands(ROOT / name)), words
        assert not where.endswith(".py") or (ROOT / where).is_file()


def test_a_command_that_fails_is_told(home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    monkeypatch.chdir(home)
    with pytest.raises(AssertionError):
        run(Command("python sft_main.py --do_trainn true", "", 1), home)
    assert "do_train" in capfd.readouterr().err
    assert not_run(Command("python x.py", "GPU only", 1)) and not not_run(Command("python x.py", "on a laptop", 1))


def test_the_docstrings_are_rendered_without_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert api_pages.main(tmp_path / "api") == 0
    assert ", 0 warnings" in capsys.readouterr().out
    assert (tmp_path / "api" / "paddlealign" / "training" / "step.html").is_file()


def test_a_warning_of_the_generator_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(api_pages.pdoc, "pdoc", lambda *_, **__: warnings.warn("a link leads nowhere", stacklevel=1))
    assert api_pages.main(tmp_path) == 1
    assert "UserWarning: a link leads nowhere" in capsys.readouterr().out
