"""How the processes of a run find the switchboard of ``faults``, in the last of them, and how words go over a line to it.

Nothing here needs Paddle.
"""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from paddlealign.errors import UserError

MEETING_SECONDS = 900  # for a process on another machine that starts later
_ANSWER_SECONDS = 20.0  # for the process of the switchboard, while it imports Paddle
_CALL_SECONDS = (10.0, 2.0)  # at the place that the launcher gave, and at the others, where a firewall may swallow a call
_PLACES, _APART = 4, 1009  # ports that are tried, and how far they lie from each other


def places(job: str) -> list[tuple[str, int]]:
    """Where the switchboard may be, in the order in which it is tried. job: the addresses that the launcher gave the processes.

    The last of them; Paddle uses the first one for itself, and no other. The launcher saw that it was free and let it go until the process
    takes it up, so that a connection of anybody's may have got it meanwhile. Then the next place is taken.
    """
    host, port = job.split(",")[-1].rsplit(":", 1)
    return [(host, 1024 + (int(port) - 1024 + _APART * place) % (65536 - 1024)) for place in range(_PLACES)]


def serve(job: str) -> socket.socket:
    """A socket that listens at the first place that is free. Raises UserError where none is."""
    why: OSError | None = None
    for place in places(job):
        try:
            return socket.create_server(place, backlog=job.count(",") + 1)
        except OSError as error:
            why = why or error
    raise UserError(f"{job.split(',')[-1]}, which Paddle's launcher gave this process, is not free ({why}). Start again.") from why


def call(job: str, rank: int) -> socket.socket:
    """A line to the switchboard. Raises UserError where it is not met within MEETING_SECONDS.

    It answers with the job's addresses: at any of the places others may listen, and a call may even reach itself.
    """
    until, why = time.monotonic() + MEETING_SECONDS, "nobody answers"
    while True:
        for place, seconds in zip(places(job), (_CALL_SECONDS[0], *[_CALL_SECONDS[1]] * (_PLACES - 1)), strict=True):
            try:
                link = socket.create_connection(place, timeout=seconds)
            except OSError as error:
                why = str(error)
                continue
            link.settimeout(_ANSWER_SECONDS)
            with suppress(OSError):
                send(link, {"event": "here", "rank": rank, "job": job})
                if next(words_of(link), None) == {"event": "welcome", "job": job}:
                    send(link, {"event": "joined"})
                    link.settimeout(None)
                    return link
            link.close()
        if time.monotonic() > until:
            told = "{}:{}".format(*places(job)[0])
            raise UserError(f"the last process, at {told}, cannot be reached ({why}). Was every launcher started?")
        time.sleep(0.1)


def answer(link: socket.socket, job: str) -> tuple[int | None, Iterator[dict[str, Any]]]:
    """Greet who has called the switchboard. Returns its rank, and what else it will say.

    None: a stranger, or one that calls again since it was not answered in time.
    """
    words = words_of(link)
    hello = next(words, None)
    if not isinstance(hello, dict) or hello.get("event") != "here" or hello.get("job") != job:
        return None, words
    with suppress(OSError):
        send(link, {"event": "welcome", "job": job})
    return None if next(words, None) is None else hello["rank"], words


def send(link: socket.socket, word: Mapping[str, Any]) -> None:
    """Say a word over a line. Raises OSError where it is broken."""
    link.sendall(json.dumps(word).encode() + b"\n")


def words_of(link: socket.socket) -> Iterator[dict[str, Any]]:
    """Each word that comes over a line, until it breaks."""
    try:
        with link.makefile(encoding="utf-8") as text:
            for row in text:
                yield json.loads(row)
    except (OSError, ValueError):
        return
