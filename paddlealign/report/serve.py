"""``--serve``: the page of runs that go on, over HTTP on this machine alone. It reads the runs' folders, and writes nothing."""

import hashlib
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from paddlealign.arguments.paths import DATA_FILE, MARGINS_FOLDER, METRICS_FILE, RUN_FILE, SAMPLES_FOLDER
from paddlealign.errors import UserError
from paddlealign.report.page import render
from paddlealign.report.run_files import read_run

LOOPBACK = "127.0.0.1"


class LivePage:
    """The page of some runs, made anew when their folders have changed."""

    def __init__(self, folders: Sequence[Path], names: Sequence[str]) -> None:
        """names: of the runs on the page."""
        self._folders, self._names = folders, names
        self._lock = Lock()
        self._version, self._page = "", b""

    def version(self) -> str:
        """A text that is another one when any file that the page is made of has changed."""
        digest = hashlib.sha256()
        for folder in self._folders:
            files = [folder / name for name in (RUN_FILE, METRICS_FILE, DATA_FILE)]
            for name in (SAMPLES_FOLDER, MARGINS_FOLDER):
                files += sorted((folder / name).glob("step-*"))
            for file in files:
                try:
                    state = file.stat()
                except OSError:
                    continue
                digest.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def page(self) -> bytes:
        """The page as the folders are now; of many that ask at once one makes it. Raises UserError."""
        with self._lock:
            version = self.version()
            if version != self._version:
                runs = [read_run(folder, name) for folder, name in zip(self._folders, self._names, strict=True)]
                self._page, self._version = render(runs, live=True).encode("utf-8", errors="replace"), version
            return self._page


def make_server(live: LivePage, host: str, port: int) -> ThreadingHTTPServer:
    """A server of the page at ``/`` and of its version at ``/version``, to be run by ``serve_forever``. Raises UserError.

    host: the address to listen at; requests must name it, or this machine by its usual names: a page of another site that has itself
    called from here (DNS rebinding) names another one. At 0.0.0.0, which is all addresses, any name is taken. port: 0 for a free one.
    """

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "PaddleAlign", ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            if not is_allowed(self.headers.get("Host", ""), host):
                self._send(403, "text/plain", b"This server answers for its own address only.\n", with_body)
            elif self.path == "/version":
                self._send(200, "text/plain", live.version().encode(), with_body)
            elif self.path == "/":
                try:
                    self._send(200, "text/html", live.page(), with_body)
                except UserError as error:
                    self._send(503, "text/plain", f"{error}\n".encode(), with_body)
            else:
                self._send(404, "text/plain", b"There is / and /version.\n", with_body)

        def _send(self, code: int, kind: str, body: bytes, with_body: bool) -> None:
            self.send_response(code)
            for name, value in (
                ("Content-Type", f"{kind}; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Frame-Options", "DENY"),
                ("Referrer-Policy", "no-referrer"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
            ):
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:  # noqa: A002 - the library's name
            """Say nothing: a page that asks each few seconds would fill the screen."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise UserError(
            f"--serve: cannot listen at {host} port {port}: {error.strerror or error}. Take another --port, or 0 for a free one."
        ) from error


def is_allowed(named: str, host: str) -> bool:
    """Whether a request that names this host (its Host header, with a port or without) is answered. host: where the server listens."""
    name = named.rpartition(":")[0] if named.rpartition(":")[2].isdecimal() else named
    return host in ("0.0.0.0", "::") or name.strip("[]").lower() in {host, LOOPBACK, "localhost"}
