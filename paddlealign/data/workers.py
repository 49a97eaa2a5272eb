"""Processes that encode chunks of rows, and the same work in this process where there are none.

A worker is this Python anew and imports only ``paddlealign.data``: no Paddle, and none of the program that starts it. It has one pipe and
ends when that closes, however this process ended. It is given a chunk only while it waits for one, so neither side can block the other.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from paddlealign.data.chunk import Chunk, EncodedChunk, Encoder, EncodingSettings, encode_chunk
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

_START = "import sys; sys.path[:] = sys.argv[2:]; from paddlealign.data.workers import serve; serve(int(sys.argv[1]))"
# Chunks that are out or wait for an earlier one, for each worker: what bounds the memory.
_IN_FLIGHT = 3


@dataclass(frozen=True)
class Task:
    """A chunk to encode. only_read: see ``encode_chunk``."""

    chunk: Chunk
    only_read: bool


# An encoded chunk; or whether a user can mend it, the error's text, and its traceback. Errors themselves may not survive the pipe.
_Result = tuple[EncodedChunk, None] | tuple[None, tuple[bool, str, str]]


class WorkerError(Exception):
    """The traceback of an error in a worker, as the cause of that error here."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    number: int | None = None  # of the task that it has


def in_order(encoder: Encoder, tasks: Iterable[Task], workers: int) -> Generator[EncodedChunk, None, None]:
    """The encoded chunks of the tasks, in their order, by so many processes; 0: by this one. Tasks are taken as they are needed.

    An error in a worker is raised here, once the chunks before it were given. Raises UserError where a worker is killed.
    """
    if not workers:
        for task in tasks:
            yield encode_chunk(encoder, task.chunk, task.only_read)
        return
    with _started(encoder, workers) as pool:
        yield from _shared_out(pool, enumerate(tasks))


def _shared_out(pool: list[_Worker], tasks: Iterator[tuple[int, Task]]) -> Iterator[EncodedChunk]:
    done: dict[int, EncodedChunk | BaseException] = {}
    due, waiting = 0, next(tasks, None)
    while True:
        for worker in pool:
            if waiting is None or waiting[0] >= due + _IN_FLIGHT * len(pool):
                break
            if worker.number is None:
                worker.number = waiting[0]
                _send(worker, waiting[1])
                waiting = next(tasks, None)
        while due in done:
            result = done.pop(due)
            if isinstance(result, BaseException):
                raise result
            due += 1
            yield result
        busy = {worker.pipe: worker for worker in pool if worker.number is not None}
        if not busy:
            if waiting is None:
                return
            continue  # what was given just now made room for the next
        for pipe in wait(list(busy)):
            worker = busy[pipe]  # type: ignore[index]
            assert worker.number is not None
            done[worker.number] = _receive(worker)
            worker.number = None


def _send(worker: _Worker, task: Task) -> None:
    try:
        worker.pipe.send(task)
    except OSError:
        raise _killed(worker) from None


def _receive(worker: _Worker) -> EncodedChunk | BaseException:
    try:
        chunk, failed = worker.pipe.recv()
    except (EOFError, OSError):
        raise _killed(worker) from None
    if failed is None:
        return chunk
    by_user, text, told = failed
    error: Exception = UserError(text) if by_user else RuntimeError(text)
    error.__cause__ = None if by_user else WorkerError(told)
    return error


def _killed(worker: _Worker) -> UserError:
    code = worker.process.wait()
    how = f"signal {-code}, as when there is no memory left" if code < 0 else f"exit code {code}; what it said stands above"
    return UserError(f"dataset_num_proc: a process that encodes rows ended early ({how}). Start again with fewer; what is done is kept.")


@contextmanager
def _started(encoder: Encoder, count: int) -> Iterator[list[_Worker]]:
    """Workers that have been told what to do. None of them is left at the end."""
    job = encoder.settings, encoder.tokenizer, encoder.template.fingerprint, encoder.paths
    pool: list[_Worker] = []
    try:
        for _ in range(count):
            ours, theirs = Pipe()
            command = [sys.executable, "-c", _START, str(theirs.fileno()), *sys.path]
            # Ctrl-C in a terminal goes to all processes of a session's group; workers are ended by this one alone.
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)
            theirs.close()
            pool.append(_Worker(process, ours))
        for worker in pool:
            try:
                worker.pipe.send(job)
            except OSError:
                raise _killed(worker) from None
        yield pool
    finally:
        for worker in pool:
            worker.pipe.close()
            worker.process.kill()
        for worker in pool:
            worker.process.wait()


def serve(descriptor: int) -> None:
    """A worker's life: encode what comes through the pipe of that descriptor until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a core for each worker; the library's threads would fight over them
    pipe = Connection(descriptor)
    encoder: Encoder | None = None
    try:
        job = pipe.recv()
        while True:
            task: Task = pipe.recv()
            result: _Result
            try:
                encoder = encoder or _encoder(*job)
                result = encode_chunk(encoder, task.chunk, task.only_read), None
            except UserError as error:
                result = None, (True, str(error), "")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again in the process that reports errors
                result = None, (False, f"{type(error).__name__}: {error}", traceback.format_exc())
            pipe.send(result)
    except (EOFError, OSError):  # the process that started this one let go of the pipe, or is no more
        return


def _encoder(settings: EncodingSettings, tokenizer: Tokenizer, template: str, paths: tuple[Path, ...]) -> Encoder:
    loaded = load_template(tokenizer, settings.chat_template)
    if loaded.fingerprint != template:
        raise UserError(f"chat_template: {settings.chat_template} was changed while the rows were read; start again.")
    return Encoder(settings, tokenizer, loaded, paths)
