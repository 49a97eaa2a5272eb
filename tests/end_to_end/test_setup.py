"""scripts/setup.sh in a bare folder: requirement files without packages, so that nothing is downloaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script, two requirement files, and the environment that the first run made."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", folder / "scripts")
    for name in ("requirements.txt", "requirements-dev.txt"):
        (folder / name).write_text("# nothing\n")
    code, out = setup(folder, "requirements.txt")
    assert code == 0, out
    assert "making .venv with Python 3." in out
    assert out.endswith("environment: .venv is ready\n")
    return folder


def setup(folder: Path, *files: str, python: str = sys.executable) -> tuple[int, str]:
    """Exit code, and all that was said. pip's settings of this machine are left out: a file is all it can install from."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHON": python, "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
    command = ["bash", str(folder / "scripts" / "setup.sh"), *files]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, cwd="/")
    return done.returncode, done.stdout


def test_the_second_run_has_nothing_to_do(bare: Path):
    assert setup(bare, "requirements.txt") == (0, "environment: .venv is up to date\n")
    assert setup(bare) == (0, "environment: .venv is up to date\n")


def test_a_changed_file_is_installed_and_the_others_stay(bare: Path):
    assert setup(bare, "requirements.txt", "requirements-dev.txt")[1].endswith("is ready\n")
    (bare / "requirements-dev.txt").write_text("# changed\n")
    assert setup(bare, "requirements.txt")[1].endswith("is up to date\n")
    assert setup(bare, "requirements-dev.txt")[1].endswith("is ready\n")
    assert setup(bare, "requirements.txt", "requirements-dev.txt")[1].endswith("is up to date\n")


def test_what_pip_said_is_shown_and_the_next_run_tries_again(bare: Path):
    (bare / "broken.txt").write_text("no-such-package==1.0\n")
    for _ in range(2):
        code, out = setup(bare, "broken.txt")
        assert code == 1
        assert "no-such-package" in out
        assert "Fix:" in out
    assert setup(bare, "requirements.txt")[1].endswith("is up to date\n")


def test_a_missing_file_is_named(bare: Path):
    code, out = setup(bare, "absent.txt")
    assert code == 1
    assert "absent.txt does not exist" in out


def test_a_python_that_does_not_start_is_named(tmp_path: Path, bare: Path):
    shutil.copytree(bare / "scripts", tmp_path / "scripts")
    (tmp_path / "requirements.txt").write_text("")
    code, out = setup(tmp_path, "requirements.txt", python="/no/such/python")
    assert code == 1
    assert "PYTHON=/no/such/python is not a Python that starts" in out
    assert "Fix:" in out
    assert not (tmp_path / ".venv").exists()


def test_the_gpu_wheel_is_not_overwritten(bare: Path):
    """Both wheels own the package paddle. With the GPU wheel in place its file stands for requirements.txt."""
    [site] = (bare / ".venv" / "lib").glob("python3*/site-packages")
    (bare / "requirements-gpu.txt").write_text("# nothing, with the other wheel\n")
    cpu, gpu = site / "paddlepaddle-3.3.1.dist-info", site / "paddlepaddle_gpu-3.3.1.dist-info"
    cpu.mkdir()
    code, out = setup(bare, "requirements-gpu.txt")
    assert code == 1
    assert "cannot be installed over it" in out
    cpu.rename(gpu)
    (gpu / "METADATA").write_text("Metadata-Version: 2.1\nName: paddlepaddle-gpu\nVersion: 3.3.1\n")
    (bare / "requirements.txt").write_text("# changed, and not to be installed\n")
    assert "installing requirements-gpu.txt into" in setup(bare, "requirements.txt")[1]
    assert setup(bare, "requirements.txt")[1].endswith("is up to date\n")
