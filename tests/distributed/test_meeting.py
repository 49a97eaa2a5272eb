"""Ranks meet where a port is taken in between, and none is left of a launcher or a waiting parent that ends in the first second."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from paddlealign.errors import UserError
from paddlealign.parallel import meeting
from tests.distributed.launching import GLOO, children, end, start_launcher
from tests.distributed.test_faults import LIMIT, SCRIPT, processes_of, wait_until
from tests.small_runs import ROOT


@contextmanager
def taken(port: int = 0, attend: Callable[[socket.socket], None] | None = None) -> Iterator[int]:
    """A port that is held by somebody, who listens where ``attend`` says what is done with a caller."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        if attend:
            holder.listen()

            def serve() -> None:
                with suppress(OSError):
                    while True:
                        attend(holder.accept()[0])

            threading.Thread(target=serve, daemon=True).start()
        yield holder.getsockname()[1]


def job_at(port: int) -> str:
    return f"127.0.0.1:1,127.0.0.1:{port}"


def meet(job: str) -> tuple[int | None, tuple[str, int]]:
    """Serve, call as rank 0 and answer, as two processes would. Returns the rank that was told, and where they met."""
    found: list[int | None] = []
    with meeting.serve(job) as board:

        def answer() -> None:
            while not found or found[-1] is None:
                found.append(meeting.answer(board.accept()[0], job)[0])

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with meeting.call(job, 0) as link:
            thread.join(10)
            return found[-1], link.getpeername()


def test_they_meet_at_the_port_that_the_launcher_gave():
    with taken() as port:
        pass
    assert meet(job_at(port)) == (0, ("127.0.0.1", port))


def test_nobody_goes_on_before_all_have_come():
    """The last process goes into Paddle, which holds Python's lock while it waits for the first: who comes then must have been answered."""
    with taken() as port:
        pass
    told = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": job_at(port), "PYTHONPATH": str(ROOT)}
    script = "import ctypes, os; from paddlealign.parallel.faults import join; line = join(os.environ); print('met', flush=True)"
    holds_the_lock = "ctypes.PyDLL(None).sleep(3)"

    def start(rank: int) -> subprocess.Popen[str]:
        environment = {**os.environ, **told, "PADDLE_TRAINER_ID": str(rank), "PADDLE_RANK_IN_NODE": str(rank)}
        command = [sys.executable, "-c", f"{script}; {holds_the_lock}; line.finish()"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)

    last = start(1)
    try:
        assert last.stdout is not None
        assert not select.select([last.stdout], [], [], 3)[0]
        first = start(0)
        try:
            assert [rank.communicate(timeout=60)[0] for rank in (first, last)] == ["met\n", "met\n"]
            assert [first.returncode, last.returncode] == [0, 0]
        finally:
            first.kill()
    finally:
        last.kill()


kept: list[socket.socket] = []


def echo(link: socket.socket) -> None:
    """What a call says that has reached itself."""
    link.sendall(link.recv(4096))
    kept.append(link)


STRANGERS = [
    pytest.param(None, id="a port that only a connection has"),
    pytest.param(socket.socket.close, id="one who hangs up"),
    pytest.param(lambda link: link.sendall(b"5\n"), id="one who says something else"),
    pytest.param(kept.append, id="one who says nothing"),
    pytest.param(echo, id="an echo"),
]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_they_meet_at_another_place_where_the_port_is_taken(stranger: Callable | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(meeting, "_ANSWER_SECONDS", 0.3)
    with taken(0, stranger) as port:
        rank, place = meet(job_at(port))
    assert rank == 0 and place in meeting.places(job_at(port))[1:]  # the next one, unless somebody else has that


def test_all_places_taken_is_told():
    with ExitStack() as stack:
        job = job_at(stack.enter_context(taken()))
        for _, port in meeting.places(job)[1:]:
            with suppress(OSError):
                stack.enter_context(taken(port))
        with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+, which Paddle's launcher gave this process, is not free .*Start again"):
            meeting.serve(job)


def test_places_are_ports_of_a_user():
    for port in (1024, 35100, 64000, 65535):
        found = [place for _, place in meeting.places(job_at(port))]
        assert found[0] == port and len(set(found)) == 4 and all(1024 <= it < 65536 for it in found)


@pytest.mark.parametrize("words", [[], [{"event": "here", "rank": 0, "job": "another"}], [{"event": "here", "rank": 0, "job": "job"}]])
def test_who_is_no_rank_or_gave_up_waiting_is_none(words: list[dict]):
    ours, theirs = socket.socketpair()
    for word in words:
        meeting.send(theirs, word)
    theirs.close()
    with ours:
        assert meeting.answer(ours, "job")[0] is None


def test_two_processes_end_well_where_the_port_is_taken(tmp_path: Path):
    """As where an outgoing connection got the port that the launcher had seen to be free."""
    with taken() as port:
        ranks = []
        for rank in range(2):
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ID": str(rank)}
            environment |= {"PADDLE_TRAINER_ENDPOINTS": job_at(port), "PADDLE_CURRENT_ENDPOINT": job_at(port).split(",")[rank]}
            command = [sys.executable, str(ROOT / "dpo_main.py"), "--help"]
            ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        try:
            said = [rank.communicate(timeout=LIMIT)[0] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert said[0].startswith("usage:") and said[1] == ""


@pytest.mark.parametrize("options", [GLOO, ()])
def test_no_rank_begins_whose_launcher_was_killed_as_it_started(tmp_path: Path, options: tuple[str, ...]):
    """The log of a rank is made just before the rank, which then needs a while to run a line of ours."""
    folder = tmp_path / "output"
    process = start_launcher([SCRIPT, str(folder), "none", "0"], 2, tmp_path / "log", options)
    try:
        wait_until(lambda: process.poll() is not None or len(children(process.pid)) == 2, LIMIT)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=LIMIT)
        wait_until(lambda: processes_of(folder) == [], 15)
    finally:
        end(process)
        for pid in processes_of(folder):
            os.kill(pid, signal.SIGKILL)
    assert not any("at work" in log.read_text(encoding="utf-8") for log in (tmp_path / "log").glob("workerlog.*"))


# The process that waits needs two seconds from the fork to its next line.
SLOW = """
import os, sys, time
from pathlib import Path
from paddlealign.parallel.stopping import work_in_child

fork = os.fork
def slow():
    pid = fork()
    if pid:
        Path(sys.argv[1], "forked").write_text(str(pid))
        time.sleep(2)
    return pid

os.fork = slow
work_in_child()
Path(sys.argv[1], "begun").touch()
time.sleep(30)
"""


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_signal_between_the_fork_and_the_wait_ends_both(tmp_path: Path, sign: int, code: int):
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    forked = tmp_path / "forked"
    try:
        wait_until(lambda: forked.exists() and forked.read_text() and (tmp_path / "begun").exists(), LIMIT)
        os.kill(process.pid, sign)
        assert process.wait(LIMIT) == code
        wait_until(lambda: processes_of(tmp_path) == [], 10)
    finally:
        process.kill()
        for pid in processes_of(tmp_path):
            os.kill(pid, signal.SIGKILL)
