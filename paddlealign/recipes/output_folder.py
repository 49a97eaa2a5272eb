"""output_dir before hours are spent: can it be written, and is it one folder for all processes?"""

import secrets
import time
from pathlib import Path

from paddlealign.errors import UserError
from paddlealign.parallel.collect import gather_values
from paddlealign.parallel.topology import Topology


def probe_folder(folder: Path) -> None:
    """Refuse an output_dir that cannot be written, before hours are spent. Nothing is left behind."""
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
        if not existed:
            folder.rmdir()
    except OSError as error:
        raise UserError(f"output_dir: {folder} cannot be written ({error.strerror}); name another folder") from error


def check_shared(topology: Topology, folder: Path, seconds: float = 60) -> None:
    """Refuse an output_dir that is not one folder for all processes: on another machine nothing could go on from a checkpoint.

    The first process leaves a file there, which the others look for, for so long: a network's file system may show it late.
    """
    if topology.world == 1:
        return
    token = folder / gather_values(topology.everyone, f".seen-by-all-{secrets.token_hex(8)}")[0]
    existed = folder.exists()
    if topology.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
    gather_values(topology.everyone, None)
    until = time.monotonic() + seconds
    while not (found := token.exists()) and time.monotonic() < until:
        time.sleep(0.2)
    blind = [rank for rank, sees in enumerate(gather_values(topology.everyone, found)) if not sees]
    if topology.is_main:
        token.unlink()
        if not existed:
            folder.rmdir()
    if blind:
        raise UserError(
            f"output_dir: {folder} is another folder for process {blind[0]} than for process 0, which writes to it. Name a folder that all "
            "machines share, by its full path"
        )
