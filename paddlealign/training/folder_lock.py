"""One run a folder: a lock that the system lets go when the process ends, however it ends.

It is a record lock (fcntl), which belongs to the process and not to its children, and which NFS knows, too. So a file that is left of a
process that was killed holds nobody up. Nothing here needs Paddle.
"""

import errno
import fcntl
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from paddlealign.errors import UserError

LOCK_FILE = ".lock"


class FolderLock:
    """The lock on a folder. Its process must not open the lock's file elsewhere: closing that would let the lock go."""

    def __init__(self, folder: Path, wanted: bool = True) -> None:
        """wanted: whether this process is to hold it; otherwise nothing is done here."""
        self._folder, self._wanted = folder, wanted
        self._file: BinaryIO | None = None
        self._made = False

    def take(self) -> str | None:
        """Take the lock, or see that it is still held. Returns what the user must know, None where all is as it should be.

        The folder is made where it is missing. Raises UserError where another process holds the lock, or the folder cannot be written.
        """
        if not self._wanted or (self._file and _is(self._folder / LOCK_FILE, self._file)):
            return None
        lost = self._file is not None
        try:
            remark = self._take()
        except OSError as error:
            raise UserError(f"output_dir: {self._folder} cannot be written ({error.strerror or error}); name another folder") from error
        if lost:
            return f"output_dir: {self._folder} was removed while the run went on; it is made again, and what it held is gone"
        return remark

    def _take(self) -> str | None:
        self._made = not self._folder.exists()
        self._folder.mkdir(parents=True, exist_ok=True)
        remark = None
        while True:
            file = open(self._folder / LOCK_FILE, "a+b", buffering=0)  # noqa: SIM115 - held for the life of the run
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise UserError(_taken(self._folder, file)) from None
                remark = (
                    f"output_dir: the file system of {self._folder} knows no locks ({error.strerror}); nothing keeps a second run from "
                    "writing there"
                )
            if _is(self._folder / LOCK_FILE, file):  # else the one who held it has just taken it away
                break
            file.close()
        if self._file is not None:
            self._file.close()
        self._file = file
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode() + b"\n")
        return remark

    def release(self) -> None:
        """Let the lock go and take its file away, and the folder, where it was made for the lock and nothing came of it."""
        if self._file is None:
            return
        with suppress(OSError):
            if _is(self._folder / LOCK_FILE, self._file):
                (self._folder / LOCK_FILE).unlink()
            if self._made:
                self._folder.rmdir()
        self._file.close()
        self._file = None


def _is(path: Path, file: BinaryIO) -> bool:
    """Whether an open file is what lies under a name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False


def _taken(folder: Path, file: BinaryIO) -> str:
    try:
        file.seek(0)
        holder = json.loads(file.read(1000))
        who = f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    finally:
        file.close()
    return f"output_dir: {folder} is in use by {who}, which writes a run there. Wait for it, stop it, or name another folder"
