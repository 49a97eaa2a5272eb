"""Starting a command: which modules are loaded, how errors come out, the reference page, the versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paddlealign import versions
from paddlealign.arguments import paddlenlp_parser
from paddlealign.arguments.fields import MAIN_SCRIPTS, SECTIONS
from paddlealign.arguments.show import reference_page
from paddlealign.errors import UserError
from paddlealign.recipes import entry

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", MAIN_SCRIPTS.values())
def test_help_and_mistakes_load_neither_paddle_nor_paddlenlp(script):
    run = "run_module" if script.startswith("python -m ") else "run_path"
    file, *task = script.removeprefix("python -m ").split()
    probe = (
        "import runpy, sys\n"
        f"sys.argv = {[file, *task, '--help']!r}\n"
        f"try: runpy.{run}({file!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'paddle', 'paddlenlp', 'numpy', 'omegaconf.nothing'} & set(sys.modules)\n"
        "assert not [name for name in sys.modules if name.startswith('_paddlealign_parser')]\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: {script} [ARGS.json]" in done.stdout


@pytest.mark.parametrize("script", MAIN_SCRIPTS.values())
def test_a_users_mistake_is_one_message_and_exit_code_1(script):
    words = script.removeprefix("python ").split()
    done = subprocess.run([sys.executable, *words, "--outpu_dir", "o"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "Did you mean output_" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sft", "with --resume_from_checkpoint true a training run goes on from its last checkpoint, where it has one"),
        ("reward", "with --resume_from_checkpoint true a training run goes on from its last checkpoint, where it has one"),
        ("dpo", "with --resume_from_checkpoint true a training run goes on from its last checkpoint, where it has one"),
        ("evaluate_rewards", "stopped by the keyboard\n"),
        ("evaluate_compare", "stopped by the keyboard; run the same command to go on\n"),
        ("predict", "stopped by the keyboard; run the same command to go on\n"),
        ("export", "stopped by the keyboard\n"),
    ],
)
def test_ctrl_c_ends_politely(monkeypatch, capsys, command, said):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "parse", interrupt)
    assert entry.main(command, []) == 130
    error = capsys.readouterr().err
    assert error.startswith("\nstopped by the keyboard") and said in error
    assert ("training" in error) == (command in ("sft", "reward", "dpo"))


def test_a_reader_that_leaves_is_no_error():
    """As under ``--help | head``: the pipe has no reader any more."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "sft_main.py", "--help"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_reference_page_is_in_step():
    page = (ROOT / "docs" / "arguments.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run: python -m paddlealign.arguments docs/arguments.md"


@pytest.mark.parametrize("command", SECTIONS)
def test_the_reference_page_has_every_key(command):
    from paddlealign.arguments.parsing import known_fields

    page = reference_page()
    for key in known_fields(command):
        assert f"| `{key}` |" in page


def test_without_paddlenlp_the_version_to_install_is_named(monkeypatch):
    monkeypatch.setattr(paddlenlp_parser.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"pip install paddlenlp=={paddlenlp_parser.PADDLENLP_VERSION}"):
        paddlenlp_parser.load_parser_class.__wrapped__()


def test_another_paddlenlp_without_the_file_is_named(monkeypatch, tmp_path):
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(paddlenlp_parser.importlib.util, "find_spec", lambda name: Spec)
    with pytest.raises(UserError, match=r"no argparser\.py"):
        paddlenlp_parser.load_parser_class.__wrapped__()


# ---- versions


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A requirements file, and installed packages that the test chooses."""
    installed: dict[str, str] = {}
    monkeypatch.setattr(versions, "installed_version", installed.get)
    path = tmp_path / "requirements.txt"
    path.write_text("# pins\npaddlepaddle==3.3.1\nNumPy==1.26.4  # why\nwheel==1.0\npaddlenlp==3.0.0b4 ; python_version < '4'\n")
    installed.update({"paddlepaddle": "3.3.1", "numpy": "1.26.4", "paddlenlp": "3.0.0b4"})
    return path, installed


def test_the_pinned_versions_pass_in_silence(machine):
    assert versions.check_versions(machine[0], (3, 10)) is None


def test_a_wrong_version_is_one_line_with_the_command(machine):
    path, installed = machine
    installed.update(numpy="2.0.0", paddlenlp="2.8.1")
    line = versions.check_versions(path, (3, 12))
    assert line is not None and "\n" not in line
    assert "numpy 2.0.0 (tested: 1.26.4)" in line
    assert line.endswith("pip install paddlenlp==3.0.0b4 numpy==1.26.4")


def test_the_gpu_wheel_counts_as_paddle(machine):
    path, installed = machine
    installed["paddlepaddle-gpu"] = installed.pop("paddlepaddle")
    assert versions.check_versions(path, (3, 11)) is None
    installed["paddlepaddle-gpu"] = "3.3.1.post126"
    assert versions.check_versions(path, (3, 11)) is None
    installed["paddlepaddle-gpu"] = "3.0.0+cu126"
    assert (versions.check_versions(path, (3, 11)) or "").endswith("paddlepaddle-gpu==3.3.1")
    path.write_text("paddlepaddle-gpu==3.0.0\n")
    assert versions.check_versions(path, (3, 11)) is None


def test_what_cannot_run_is_an_error(machine):
    path, installed = machine
    installed["paddlepaddle-gpu"] = "3.3.1"
    with pytest.raises(UserError, match="both installed"):
        versions.check_versions(path, (3, 11))
    installed.clear()
    with pytest.raises(UserError, match=r"Not installed: paddlepaddle==3\.3\.1, paddlenlp==3\.0\.0b4, numpy==1\.26\.4"):
        versions.check_versions(path, (3, 11))
    with pytest.raises(UserError, match=r"Mend: python -m pip install -r .*requirements\.txt \(for a GPU requirements-gpu\.txt"):
        versions.check_versions(path, (3, 11))
    for python in ((3, 9), (3, 13)):
        with pytest.raises(UserError, match="is not supported"):
            versions.check_versions(path, python)


@pytest.mark.parametrize("wheel", ["paddlepaddle", "paddlepaddle-gpu"])
def test_a_missing_package_never_brings_another_wheel_of_paddle(machine, wheel):
    path, installed = machine
    del installed["numpy"], installed["paddlenlp"]
    installed[wheel] = installed.pop("paddlepaddle")
    with pytest.raises(UserError, match=r"Mend: python -m pip install paddlenlp==3\.0\.0b4 numpy==1\.26\.4$"):
        versions.check_versions(path, (3, 11))


def test_without_requirements_only_python_is_checked(tmp_path):
    assert versions.check_versions(tmp_path / "none.txt", (3, 11)) is None
