"""``python -m paddlealign.report RUN [RUN ...]``: the page of a run, or of several side by side, written or served live."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from paddlealign.arguments.paths import PAGE_FILE
from paddlealign.errors import UserError
from paddlealign.messages.language import check_language, translated
from paddlealign.models.tensor_files import write_bytes
from paddlealign.report.page import MARK, render
from paddlealign.report.run_files import read_run
from paddlealign.report.serve import LOOPBACK, LivePage, make_server


def main(argv: Sequence[str] | None = None) -> int:
    """Write or serve the page. The exit code: 0, 1 after a user's error, 130 after Ctrl-C."""
    words = _parser().parse_args(argv)
    try:
        check_language(os.environ)
        folders = list(dict.fromkeys(words.runs))
        names = names_of(folders)
        if words.serve:
            _serve(folders, names, words.host, words.port)
        else:
            print(translated(f"written: {write(folders, names, words.output)}"))
    except UserError as error:
        print(translated(f"error: {error}", sys.stderr), file=sys.stderr)
        return 1
    except OSError as error:
        print(translated(f"error: {error.filename}: {error.strerror}.", sys.stderr), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def write(folders: Sequence[Path], names: Sequence[str], output: Path | None) -> Path:
    """Write the page to ``output``: by default into the run's folder, of several runs into this one. Raises UserError and OSError.

    A file of that name that is no page of ours is not written over.
    """
    path = output or (folders[0] / PAGE_FILE if len(folders) == 1 else Path(PAGE_FILE))
    if path.is_dir():
        raise UserError(f"--output: {path} is a folder. Name a file in it, such as {path / PAGE_FILE}.")
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")[:4000]:
        raise UserError(f"--output: {path} exists already and is no run's page. Name another file, or remove it.")
    page = render([read_run(folder, name) for folder, name in zip(folders, names, strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def names_of(folders: Sequence[Path]) -> list[str]:
    """What the runs are called on the page: by their folders' names, where these differ; else by their paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _serve(folders: Sequence[Path], names: Sequence[str], host: str, port: int) -> None:
    live = LivePage(folders, names)
    live.page()  # what is wrong with a run is told here, not to the browser
    server = make_server(live, host, port)
    address = f"http://{host}:{server.server_address[1]}/"
    print(translated(f"{address} (Ctrl-C ends it; it follows the runs, and writes nothing)"), flush=True)
    if host not in (LOOPBACK, "localhost", "::1"):
        print(translated(f"note: anyone who reaches {host} can read the page, with its samples and arguments"), flush=True)
    with server:
        server.serve_forever()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m paddlealign.report", description="The page of a run, or of several side by side.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a training run")
    parser.add_argument("-o", "--output", type=Path, help=f"file to write; of one run RUN/{PAGE_FILE} by default, of several ./{PAGE_FILE}")
    parser.add_argument("--serve", action="store_true", help="show the page live while runs go on, and write no file")
    parser.add_argument("--host", default=LOOPBACK, help="with --serve: where to listen (default %(default)s, this machine alone)")
    parser.add_argument("--port", type=int, default=8008, help="with --serve (default %(default)s; 0 takes a free one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
