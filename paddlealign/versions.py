"""Are the installed packages those that this project was tested with? Read from metadata; nothing heavy is imported."""

import importlib.metadata
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from paddlealign.errors import UserError

PYTHON_FROM, PYTHON_BELOW = (3, 10), (3, 13)
# what the code imports itself; the rest of requirements.txt is there for these
DIRECT = (
    "paddlepaddle", "paddlenlp", "numpy", "tokenizers", "jinja2", "omegaconf", "tqdm", "matplotlib",
)  # fmt: skip
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"


def check_versions(requirements: Path = REQUIREMENTS, python: tuple[int, ...] = tuple(sys.version_info[:2])) -> str | None:
    """One line about packages of another version than pinned, with the command that mends it, or None.

    Without the file only Python is checked. Raises UserError where nothing could run: an unsupported Python, a pinned package that is
    missing, or the CPU and the GPU wheel of Paddle installed over each other.
    """
    if not PYTHON_FROM <= tuple(python[:2]) < PYTHON_BELOW:
        found = ".".join(str(part) for part in python[:2])
        raise UserError(f"Python {found} is not supported; 3.10, 3.11 and 3.12 are. Make the environment with one of these.")
    if not requirements.is_file():
        return None
    pins = read_pins(requirements.read_text(encoding="utf-8"))
    if installed_version("paddlepaddle") and installed_version("paddlepaddle-gpu"):
        raise UserError(
            "paddlepaddle and paddlepaddle-gpu are both installed and overwrite each other. "
            "Mend: python -m pip uninstall -y paddlepaddle paddlepaddle-gpu, then install one of them again."
        )
    wrong, missing = [], []
    for name in DIRECT:
        pin = pins.get(name)
        if pin is None:
            continue
        version = installed_version(name) or (installed_version("paddlepaddle-gpu") if name == "paddlepaddle" else None)
        if version is None:
            missing.append(f"{name}=={pin}")
        elif _public(version) != _public(pin):
            wrong.append((name, pin, version))
    if missing:
        raise UserError(f"Not installed: {', '.join(missing)}. Mend: python -m pip install {_what_to_install(missing, requirements)}")
    if not wrong:
        return None
    listed = ", ".join(f"{name} {version} (tested: {pin})" for name, pin, version in wrong)
    gpu = installed_version("paddlepaddle-gpu") is not None
    wanted = " ".join(f"{'paddlepaddle-gpu' if gpu and name == 'paddlepaddle' else name}=={pin}" for name, pin, _ in wrong)
    return f"Other versions than tested: {listed}. Mend: python -m pip install {wanted}"


def read_pins(text: str) -> dict[str, str]:
    """The version of every ``name==version`` line by its name, in lower case with dashes, as paddlepaddle for either of its wheels."""
    pins = {}
    for line in text.splitlines():
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*==\s*([^\s;#\\]+)", line)
        if match:
            name = re.sub(r"[-_.]+", "-", match.group(1)).lower()
            pins["paddlepaddle" if name == "paddlepaddle-gpu" else name] = match.group(2)
    return pins


def installed_version(name: str) -> str | None:
    """The version in the package's metadata, None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _what_to_install(missing: Sequence[str], requirements: Path) -> str:
    """The missing packages alone: the whole file would put Paddle's CPU wheel over a GPU wheel. Without any Paddle it is the file."""
    if not missing[0].startswith("paddlepaddle=="):
        return " ".join(missing)
    return f"-r {requirements} (for a GPU {requirements.with_name('requirements-gpu.txt').name} beside it, see docs/gpu.md)"


def _public(version: str) -> str:
    """Without the build's own suffix: 3.3.1+cu126 and 3.3.1.post126 are 3.3.1."""
    return re.split(r"\+|\.post", version)[0]
