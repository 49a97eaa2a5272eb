"""Being asked to stop, by Ctrl-C or SIGTERM: a run that wants to finishes its step and leaves a checkpoint first.

Nothing here needs Paddle. What its launcher does was read in Paddle 3.3.1: its processes have sessions of their own, so Ctrl-C reaches the
launcher alone. It sends each of them SIGTERM, thrice within a second while they live, and after 30 s thrice more and SIGKILL; after a
second Ctrl-C 10 s. The older launcher behind ``--backend`` kills after 4 s, and at a SIGTERM of its own it ends without a word. The
checkpoint of a large model takes longer, so the process that the launcher knows is a mere parent of the one that works: the launcher may
kill it, and the save goes on.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from paddlealign.messages.language import translated

# The exit code after SIGTERM where the same command, started again, goes on: "temporary failure, try again" in sysexits.h. It is nobody
# else's here, so that a scheduler can tell it from a failure (1) and from a process that was killed (137, 143).
RESTART_CODE = 75
# With which exit code a run ends that left a checkpoint first; after Ctrl-C it is the shell's, since a person wanted that end.
STOP_CODES = {signal.SIGINT: 130, signal.SIGTERM: RESTART_CODE}
_REPEATING_SECONDS = 2.0  # in which another SIGTERM is the launcher's repetition
_LAUNCHER_SECONDS = 29.0  # after which another SIGTERM is the launcher's, before it kills
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG in Linux's prctl.h


@dataclass
class StopRequest:
    """What this process was asked.

    watched: a thread takes the signals in (``faults.Line``), as the main one may wait inside Paddle; else Python's handlers do. heeded:
    whether a signal is noted for the end of the step, and does not end the process. restarts: whether SIGTERM ends with ``RESTART_CODE``,
    whenever it comes. seconds: after SIGTERM, in which there must be a checkpoint; None: it takes the time that it takes. numbers: the
    signals that were noted. leave: ends the process, or all of them, with a text and an exit code.
    """

    watched: bool
    heeded: bool = False
    restarts: bool = False
    seconds: float | None = None
    numbers: set[int] = field(default_factory=set)
    leave: Callable[[str, int], None] = field(default_factory=lambda: _leave)
    _deadline: threading.Timer | None = None
    _first: float | None = None  # when the first signal from outside came
    _joining: bool = False

    @contextmanager
    def armed(self, restarts: bool, seconds: float | None) -> Iterator[None]:
        """What the arguments ask for, see the fields, holds as long as the context lasts. For the main thread."""
        self.restarts, self.seconds = restarts, seconds
        before = signal.getsignal(signal.SIGTERM)
        self.arm()
        try:
            yield
        finally:
            if restarts and not self.watched and not self.numbers:
                signal.signal(signal.SIGTERM, before)

    def arm(self) -> None:
        """Once more after the import of Paddle, which puts a handler of its own in the place of ours."""
        if self.restarts and not self.watched:
            signal.signal(signal.SIGTERM, lambda *_: self.leave(STOPPED_EARLY, RESTART_CODE))

    @contextmanager
    def heed(self, wanted: bool) -> Iterator[None]:
        """Where ``wanted``, note SIGINT and SIGTERM as long as the context lasts, and on where one came. For the main thread."""
        if not wanted:
            yield
            return
        handler = _nothing if self.watched else self._take
        before = {number: signal.signal(number, handler) for number in STOP_CODES}
        self.heeded = True
        try:
            yield
        finally:
            if self._deadline:
                self._deadline.cancel()
            if not self.numbers:  # else the launcher may repeat itself
                self.heeded = False
                for number, old in before.items():
                    signal.signal(number, old)

    def note(self, number: int, launched: bool) -> bool:
        """Take in a signal. Returns whether it asks to end at once, as a second one does. launched: the launcher is still there."""
        now = time.monotonic()
        inside, self._joining = self._joining, False
        self.numbers.add(number)
        if number == signal.SIGTERM and self.seconds is not None and self._deadline is None:
            late = stopped_late(self.seconds)
            self._deadline = threading.Timer(self.seconds, self.leave, (late, RESTART_CODE))
            self._deadline.daemon = True
            self._deadline.start()
        if inside:  # the launcher's own signals are still to come: it goes through its processes one after another
            return False
        if self._first is None:
            self._first = now
            return False
        since = now - self._first
        return number == signal.SIGINT or (since > _REPEATING_SECONDS and not (launched and since > _LAUNCHER_SECONDS))

    def join_in(self) -> None:
        """Another process was asked to stop: this one is too, before or instead of a signal from outside."""
        if not self.numbers:
            self._joining = True
            signal.raise_signal(signal.SIGTERM)

    def _take(self, number: int, _: FrameType | None) -> None:
        first = not self.numbers
        if self.note(number, launched=False):
            raise KeyboardInterrupt
        if first:
            print(f"\n{translated(HEEDED)}", flush=True)


def _leave(text: str, code: int) -> None:
    """End this process at once, from any thread. What it was writing stays half written beside what it was to replace."""
    print(f"\n{translated(text, sys.stderr)}", file=sys.stderr, flush=True)
    os._exit(code)


STOPPED_EARLY = "stopped by SIGTERM while no step was under way; start again with --resume_from_checkpoint auto"
HEEDED = "stopping after this step, with a checkpoint; another Ctrl-C ends at once, without one"


def work_in_child() -> int:
    """Go on in a child; this process only waits, and ends as the child does. Returns, in the child, the id of the launcher.

    To be called before there are threads. The waiting process ends with the launcher, and the child with it, see ``end_with_parent``; a
    launcher that has ended before ends both here.
    """
    launcher = os.getppid()
    end_with_parent(launcher)
    if _launcher_is_gone(launcher):
        os._exit(1)
    # Signals wait from before the fork on, so that none is lost, or ends this process without its child.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it is not told of a child's end
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*STOP_CODES, signal.SIGCHLD])
    waiting = os.getpid()
    child = os.fork()
    if child == 0:
        end_with_parent(waiting)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return launcher
    ended = status = 0
    while not ended:
        if signal.sigwait([*STOP_CODES, signal.SIGCHLD]) != signal.SIGCHLD:
            os.kill(child, signal.SIGTERM)  # one that has ended is there until it is waited for
        ended, status = os.waitpid(child, os.WNOHANG)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _launcher_is_gone(parent: int) -> bool:
    """Whether Paddle's launcher started this process and is no longer its parent: another process has taken it in.

    Either launcher gives each of its processes a session, and a log as its output, which it keeps open itself.
    """
    logs = [os.fstat(number) for number in (1, 2) if _name_of(f"/proc/self/fd/{number}").startswith("workerlog.")]
    if os.getsid(0) != os.getpid() or not logs:
        return False
    try:
        files = os.listdir(f"/proc/{parent}/fd")
    except OSError:  # another user's
        return parent == 1
    for name in files:
        with suppress(OSError):  # it has just been closed
            if any(os.path.samestat(os.stat(f"/proc/{parent}/fd/{name}"), log) for log in logs):
                return False
    return True


def _name_of(link: str) -> str:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return ""


def end_with_parent(parent: int) -> None:
    """Let the system kill this process when ``parent`` ends, as long as the calling thread lives."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended in between
        os._exit(1)


def outlive_parent() -> None:
    """Take ``end_with_parent`` back. For the thread that called it: Linux keeps this by thread."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH, 0, 0, 0, 0)


def _nothing(*_: object) -> None:
    """A handler of Python's own, without which a signal does not reach the thread that watches for it."""


def stopped_late(seconds: float) -> str:
    """What is told where a checkpoint was not written in time."""
    return (
        f"stopped: there was no whole checkpoint {seconds:g} s after SIGTERM (preempt_save_seconds); the last one is intact, go on with "
        "--resume_from_checkpoint auto"
    )
