"""The bytes of a data file in blocks, unpacked, so that the file is never in memory as a whole."""

import gzip
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from paddlealign.data.pieces import Blocks, Cut
from paddlealign.errors import UserError

PACKED = (".gz", ".zst")
BLOCK = 1 << 17
_READ_ERRORS = (OSError, EOFError, zlib.error)


def check_file(path: Path) -> None:
    """Raise UserError where there is no regular file of rows: it is missing, a folder, a pipe, or may not be read."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{path}: no such data file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: this is a folder; a file of rows is needed.")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: this is a pipe or a device. Rows are read more than once; write them to a file first.")


def blocks_of(path: Path) -> Blocks:
    """The content of a file, unpacked; a ``Cut`` comes last where it breaks off. Raises UserError where nothing can be read."""
    given = False
    try:
        with _opened(path) as file:
            read = file.read1 if hasattr(file, "read1") else file.read  # read1 gives what it has before it meets the end of a cut archive
            while block := read(BLOCK):
                yield bytes(block)
                given = True
    except _READ_ERRORS as error:
        reason = reason_of(error)
        if not given:
            raise UserError(f"{path}: cannot be read: {reason}.") from None
        yield Cut(reason)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as file:
            yield file
    elif path.suffix == ".zst":
        import pyarrow  # only those who have such files wait for it

        with path.open("rb") as source, pyarrow.CompressedInputStream(source, "zstd") as stream:
            yield stream
    else:
        with path.open("rb") as file:
            yield file


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, in one line without a full stop."""
    if isinstance(error, EOFError):
        return "the archive ends before its end mark, it was cut short"
    if isinstance(error, MemoryError):  # damage may have made a length of any bytes
        return "it asks for more memory than there is"
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0].rstrip(".") if text.strip() else type(error).__name__


@contextmanager
def seekable(path: Path) -> Iterator[IO[bytes]]:
    """The file, for readers that jump about in it; a packed one is unpacked into a temporary file. Raises UserError."""
    try:
        with path.open("rb") if path.suffix not in PACKED else tempfile.TemporaryFile() as file:
            if path.suffix in PACKED:
                for block in blocks_of(path):
                    if isinstance(block, Cut):
                        raise UserError(f"{path}: cannot be read: {block.reason}.")
                    file.write(block)
                file.seek(0)
            yield file
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
