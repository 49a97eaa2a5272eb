"""What each rank runs for test_faults.py: it talks to the others without end, until one does what it is told.

Arguments: the folder for errors.txt, what happens (raise, refuse, kill, abort, none, finish, save) and to which rank; after save: how many
seconds all of them save for when they are asked to stop, and how many they have.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

from paddlealign.errors import UserError
from paddlealign.machine import prepare
from paddlealign.parallel.faults import join

ROUNDS_BEFORE = 20


def work(what: str, whom: int) -> None:
    import numpy as np

    from paddlealign.parallel.collect import sum_over
    from paddlealign.parallel.topology import start

    line.heed_signals()
    topology = start(1, 1, int(os.environ["PADDLE_TRAINERS_NUM"]))
    if what == "save":
        line.request.seconds = float(sys.argv[4]) if sys.argv[4:] else None
        with line.request.heed(True):
            print("at work", flush=True)
            while not sum_over(topology.everyone, np.array(len(line.request.numbers))):
                time.sleep(0.005)
            line.request.join_in()
            print("saving", flush=True)
            time.sleep(whom)
            (line.folder / f"saved{topology.rank}").touch()
            sum_over(topology.everyone, np.ones(1))
            line.stop("saved by all", 143)
    done = 0
    while what != "finish" or done < 2 * ROUNDS_BEFORE:
        sum_over(topology.everyone, np.ones(2))
        done += 1
        if done == ROUNDS_BEFORE:
            print("at work", flush=True)
            if topology.rank == whom:
                happen(what)
        time.sleep(0.005)


def happen(what: str) -> None:
    if what == "raise":
        raise ValueError("an invented fault")
    if what == "refuse":
        raise UserError("an invented key: 5 is not allowed")
    if what == "abort":
        os.abort()
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    line = join(os.environ)
    line.folder = Path(sys.argv[1])
    prepare()
    try:
        work(sys.argv[2], int(sys.argv[3]))
    except UserError as error:
        line.fail(str(error))
    except Exception:  # noqa: BLE001
        line.fail(traceback.format_exc())
    line.finish()
