"""The environment that TRL runs in. PaddleNLP runs in ours, where requirements.txt pins it."""

import subprocess
import sys
import venv
from pathlib import Path

PINS = Path(__file__).with_name("requirements-trl.txt")


def trl_python(folder: Path) -> Path:
    """The interpreter of TRL's environment, which is made where there is none. Raises RuntimeError where one has other versions."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} from {PINS.name} (about 1.5 GB)", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(PINS)], check=True)
    asked = dict(line.split("==") for line in PINS.read_text().splitlines() if not line.startswith("#"))
    script = "import sys, importlib.metadata as m; print(*(m.version(name).split('+')[0] for name in sys.argv[1:]))"
    done = subprocess.run([str(python), "-c", script, *asked], capture_output=True, text=True, check=False)
    found = dict(zip(asked, done.stdout.split(), strict=False))
    if found != asked:
        raise RuntimeError(
            f"{folder} has {found or done.stderr.strip()}, {PINS.name} asks for {asked}. Remove the folder, and it is made anew"
        )
    return python


def versions() -> dict[str, str]:
    """Name and version of what is compared, as pinned."""
    from importlib.metadata import version

    trl = dict(line.split("==") for line in PINS.read_text().splitlines() if not line.startswith("#"))
    return {"paddlepaddle": version("paddlepaddle"), "paddlenlp": version("paddlenlp"), **trl, "python": sys.version.split()[0]}
