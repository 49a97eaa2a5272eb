"""The end of a run in several processes: where one fails, all end, and its error is the last thing on the screen.

Every process keeps a line (TCP) to a switchboard in the last one, and says there how it ended. A process whose line breaks without a word
was killed. Whatever ends first ends all: the switchboard tells everyone what it was. Nothing here needs Paddle, so that the lines stand
before it is imported and a process is told even while it waits for another inside Paddle.
"""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from paddlealign.arguments.paths import ERROR_FILE
from paddlealign.errors import UserError
from paddlealign.messages.language import translated
from paddlealign.parallel.agreement import disagreement
from paddlealign.parallel.meeting import MEETING_SECONDS, answer, call, send, serve, words_of
from paddlealign.parallel.stopping import (
    HEEDED,
    RESTART_CODE,
    STOP_CODES,
    STOPPED_EARLY,
    StopRequest,
    end_with_parent,
    outlive_parent,
    work_in_child,
)

STOPPED = (
    "stopped by the keyboard or a signal; with --resume_from_checkpoint true a training run goes on from its last checkpoint, where it has "
    "one (save_strategy), and else from the first step; a prediction goes on with the same command"
)
_COLLECTING_SECONDS = 1.0  # in which a killed process is told from those that failed because of it

# Waits for the launcher, so that nothing that it prints comes after; half a minute at most. A zombie has ended.
_LAST_WORD = r"""
i=0
while [ $i -lt 600 ] && grep -qs '^State:.[^ZX]' /proc/$1/status; do sleep 0.05; i=$((i + 1)); done
printf '\n%s\n' "$2"
"""


@dataclass
class Line:
    """This process's line to the switchboard. folder: where ERROR_FILE is written, once it is known. request: see ``_hear``."""

    rank: int
    place: int  # among the processes of this machine
    link: socket.socket
    launcher: int
    folder: Path | None = None
    request: StopRequest = field(default_factory=lambda: StopRequest(watched=True))
    met: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    screen: TextIO | None = None

    def tell(self, told: Mapping[str, str]) -> None:
        """Say what this process was told; where two were told different things the run ends. Before Paddle's groups are made."""
        self._say({"event": "told", "told": dict(told)})

    def fail(self, text: str) -> None:
        """Say that this process cannot go on. Does not return: all processes end, and the screen shows the error that came first."""
        self._say({"event": "failed", "text": text})
        self._wait()

    def stop(self, text: str = STOPPED, code: int = STOP_CODES[signal.SIGINT]) -> None:
        """Say that this process was asked to stop. Does not return: all end, with the exit code, and the screen shows the text."""
        self._say({"event": "stopped", "text": text, "code": code})
        self._wait()

    def finish(self) -> None:
        """Say that this process is done, and wait until all are. An ERROR_FILE of an earlier run is taken away."""
        self._say({"event": "finished"})
        self.over.wait()
        if self.folder and self.rank == 0:
            (self.folder / ERROR_FILE).unlink(missing_ok=True)

    def heed_signals(self) -> None:
        """Once more after the import of Paddle, which puts a handler of its own in the place of ours. For the main thread."""
        signal.signal(signal.SIGTERM, lambda *_: None)  # what is done is done by the thread of ``_watch_signals``

    def _say(self, word: dict[str, Any]) -> None:
        with suppress(OSError):  # the switchboard is gone, which the listener sees as well
            send(self.link, word)

    def _watch_signals(self) -> None:
        """Hear the signals that ask to stop, also while the main thread waits inside Paddle."""
        ours, python = socket.socketpair()
        python.setblocking(False)
        signal.set_wakeup_fd(python.fileno(), warn_on_full_buffer=False)
        parent, bound = os.getppid(), threading.Event()

        def watch(_: socket.socket = python) -> None:  # keeps the other end open
            end_with_parent(parent)
            bound.set()
            while True:
                for number in ours.recv(64):
                    if number in STOP_CODES:
                        self._hear(number, launched=os.getppid() == parent)

        threading.Thread(target=watch, daemon=True).start()
        bound.wait()
        outlive_parent()  # the thread alone is bound, which can also let go
        self.heed_signals()

    def _hear(self, number: int, launched: bool) -> None:
        """SIGTERM, which the launcher sends after Ctrl-C, ends all processes; where it is heeded, it is noted for the end of the step.

        From then on the launcher's end is not this process's: it saves, and ends by itself. For the thread that watches.
        """
        first = not self.request.numbers
        if not self.request.heeded:
            if number == signal.SIGTERM and self.request.restarts:
                self.stop(STOPPED_EARLY, RESTART_CODE)
            elif number == signal.SIGTERM:  # SIGINT is Python's affair
                self.stop()
        elif self.request.note(number, launched):
            self.stop()
        elif first:
            outlive_parent()
            with suppress(OSError):
                self.screen = _open_screen(self.launcher)  # the launcher may be gone before there is anything to say
                if self.place == 0:
                    print(f"\n{translated(HEEDED, self.screen)}", file=self.screen, flush=True)

    def _meet(self) -> None:
        """Wait until all processes have taken up their lines. Raises UserError where one does not come.

        Paddle waits for the first process with Python's lock held, so that from then on nobody who is late could be answered here.
        """
        if not self.met.wait(MEETING_SECONDS):
            raise UserError(f"not all processes have come within {MEETING_SECONDS} s. Was every launcher started?")

    def _wait(self) -> None:
        time.sleep(10 * _COLLECTING_SECONDS)
        os._exit(1)

    def _listen(self, last: int) -> None:
        """Wait for the switchboard's words; for the thread that does so."""
        words = words_of(self.link)
        word = next(words, None)
        if word == {"event": "met"}:
            self.met.set()
            word = next(words, None)
        word = word or {"event": "end", "rank": last, "text": None}
        if word["event"] == "over":
            self.over.set()
            return
        if self.place == _speaker(self.rank - self.place, word):
            _speak(word, self.folder, self.launcher, self.screen)
        os._exit(word.get("code", 1))


def join(environment: Mapping[str, str]) -> Line | None:
    """Take up the line, where the environment is that of one of several processes; None in one. For the main thread.

    From here on the process is a child of the one that was started (``stopping``) and ends with the launcher, however that ends, and
    SIGTERM stops all processes. Raises UserError.
    """
    world = int(environment.get("PADDLE_TRAINERS_NUM", "1"))
    if world == 1:
        return None
    launcher = work_in_child()
    rank = int(environment["PADDLE_TRAINER_ID"])
    job = environment["PADDLE_TRAINER_ENDPOINTS"]
    if rank == world - 1:
        threading.Thread(target=_switchboard, args=(serve(job), world, job), daemon=True).start()
    link = call(job, rank)
    line = Line(rank, int(environment.get("PADDLE_RANK_IN_NODE", rank)), link, launcher)
    threading.Thread(target=line._listen, args=(world - 1,), daemon=True).start()
    line.request.leave = line.stop
    line._watch_signals()
    line._meet()
    return line


def _switchboard(board: socket.socket, world: int, job: str) -> None:
    """Answer the lines of all processes, for the thread that does so: collect how they end, and tell everyone what ended first."""
    events: queue.Queue[dict[str, Any]] = queue.Queue()
    links: dict[int, socket.socket] = {}

    def attend(link: socket.socket) -> None:
        rank, words = answer(link, job)
        if rank is None:
            link.close()
            return
        links[rank] = link
        events.put({"event": "here", "rank": rank})
        for word in words:
            events.put({**word, "rank": rank})
        events.put({"event": "gone", "rank": rank})

    def accept() -> None:
        while True:
            threading.Thread(target=attend, args=(board.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    here: set[int] = set()
    finished: set[int] = set()
    told: dict[int, dict[str, str]] = {}
    while len(finished) < world:
        event = events.get()
        if event["event"] == "here":
            here.add(event["rank"])
            if len(here) == world:
                _tell(links, {"event": "met"})
            continue
        if event["event"] == "finished":
            finished.add(event["rank"])
            continue
        if event["event"] == "told":
            told[event["rank"]] = event["told"]
            text = disagreement([told[rank] for rank in range(world)]) if len(told) == world else None
            if text is None:
                continue
            event = {"event": "failed", "rank": 0, "text": text}
        time.sleep(_COLLECTING_SECONDS)
        others = [events.get_nowait() for _ in range(events.qsize())]
        verdict = cause([event, *(it for it in others if it["event"] not in ("told", "here"))])
        _tell(links, {**verdict, "event": "end", "text": verdict.get("text")})
        return
    _tell(links, {"event": "over"})


def cause(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Which of some events, in their order, brought the others about.

    After a request to stop that is it. Otherwise a process that was killed comes before one that failed: whoever talked to it fails, and
    may say so before its line is seen to be broken.
    """
    if events[0]["event"] == "stopped":
        return events[0]
    gone = [event for event in events if event["event"] == "gone"]
    return next(iter(gone + [event for event in events if event["event"] == "failed"]), events[0])


def _tell(links: Mapping[int, socket.socket], word: dict[str, Any]) -> None:
    for rank in sorted(links):  # the last one is this very process, and ends with the word
        with suppress(OSError):
            send(links[rank], word)


def _speaker(first: int, word: Mapping[str, Any]) -> int:
    """Which process of a machine speaks, by its place: its first, or the second where the first (of rank ``first``) was killed."""
    return 1 if word["text"] is None and word["rank"] == first else 0


def _speak(word: Mapping[str, Any], folder: Path | None, launcher: int, screen: TextIO | None) -> None:
    """Write down what ended the run, and leave it as the last thing on the launcher's screen. screen: where that is open already."""
    text, failed = word["text"], "code" not in word
    if failed:
        text = f"error on rank {word['rank']}: {text}" if text is not None else killed(word["rank"])
    try:
        if folder is not None and failed:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ERROR_FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        text += f"\n(not written to {folder / ERROR_FILE if folder else ''}: {error.strerror})"
    try:
        with screen or _open_screen(launcher) as screen:
            command = ["sh", "-c", _LAST_WORD, "sh", str(launcher), translated(text, screen)]
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=screen, stderr=screen, start_new_session=True, close_fds=True)
    except OSError:
        print(translated(text, sys.stderr), file=sys.stderr, flush=True)


def _open_screen(launcher: int) -> TextIO:
    """The launcher's error output, not this process's, which is a log file."""
    return open(f"/proc/{launcher}/fd/2", "a", encoding="utf-8")


def killed(rank: int) -> str:
    """What is known of a process that ended without a word: what it wrote last, if its log lies beside this process's."""
    text = (
        f"error: rank {rank} was killed, or crashed inside Paddle, without saying why. Where memory runs out, the system kills (see dmesg)."
    )
    try:
        log = Path(os.readlink("/proc/self/fd/2")).with_name(f"workerlog.{rank}")
        last = [row for row in log.read_text(encoding="utf-8", errors="replace").splitlines() if row.strip()][-10:]
    except OSError:
        return text
    return "\n".join([f"{text} Its last lines:" if last else text, *last])
