"""output_dir before hours are spent: is it one folder for all processes, and where does a run go on?"""

import secrets
import time
from pathlib import Path

from paddlealign.errors import UserError
from paddlealign.models.tensor_files import PART_SUFFIX
from paddlealign.parallel.collect import gather_values
from paddlealign.parallel.topology import Topology
from paddlealign.training.run_folder import Resume, choose_resume, remove_leftovers


def check_shared(topology: Topology, folder: Path, seconds: float = 60) -> None:
    """Refuse an output_dir that is not one folder for all processes: on another machine nothing could go on from a checkpoint.

    The first process leaves a file there, which the others look for, for so long: a network's file system may show it late. Where it is
    killed meanwhile the file is a leftover like any (``tensor_files.remove_parts``).
    """
    if topology.world == 1:
        return
    token = folder / gather_values(topology.everyone, f".seen-by-all.{secrets.token_hex(8)}{PART_SUFFIX}")[0]
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


def settle_folder(topology: Topology, output_dir: Path, resume_from_checkpoint: str | None, clean: bool) -> Resume:
    """What the first process finds of the checkpoint to go on from, in all; see ``run_folder.choose_resume``.

    clean: whether to take away what a run that was killed left half done; for who holds the folder's lock.
    """
    folder, remarks = None, []
    if topology.is_main:
        left = remove_leftovers(output_dir) if clean else []
        remarks = [f"{output_dir}: {', '.join(left)}, left by a run that was broken off, taken away"] if left else []
        chosen = choose_resume(output_dir, resume_from_checkpoint)
        folder, remarks = chosen.folder and str(chosen.folder), remarks + chosen.remarks
    folder, remarks = gather_values(topology.everyone, [folder, remarks])[0]
    return Resume(folder and Path(folder), remarks)
