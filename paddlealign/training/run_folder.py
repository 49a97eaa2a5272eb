"""The folder of a run: which checkpoints lie there, which of them to go on from, and what is taken away."""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from paddlealign.arguments.paths import (
    CURVES_FILE,
    DATA_FILE,
    ERROR_FILE,
    INCIDENTS_FILE,
    MARGINS_FOLDER,
    METRICS_FILE,
    PAGE_FILE,
    REFERENCE_FOLDER,
    RUN_FILE,
    SAMPLES_FOLDER,
)
from paddlealign.errors import UserError
from paddlealign.models.tensor_files import remove_parts
from paddlealign.training.manifest import find_damage, has_manifest

STATE_FILE = "trainer_state.json"
# Values of resume_from_checkpoint that name no folder.
NEWEST = ("true", "auto")
# While a checkpoint is written, and while one is taken away: neither name is ever looked for.
PARTIAL, REMOVED = ".partial", ".removed"
_NAME = re.compile(r"checkpoint-(\d+)")
_LEFTOVER = re.compile(r"checkpoint-\d+(\.partial|(\.partial|\.abandoned)?\.removed)")


class Resume(NamedTuple):
    """Where to go on. folder: the checkpoint; None: from the first step. remarks: what the user must know of the choice."""

    folder: Path | None
    remarks: list[str]


def list_checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """All checkpoints of a run as (step, folder), oldest first. What has neither state nor manifest is none."""
    if not output_dir.is_dir():
        return []
    found = [(int(match[1]), path) for path in output_dir.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((step, path) for step, path in found if (path / STATE_FILE).exists() or has_manifest(path))


def find_resume(output_dir: Path, resume_from_checkpoint: str | None) -> Path | None:
    """Turn the key ``resume_from_checkpoint`` into a folder: None stays None, "true" and "auto" are the newest checkpoint of output_dir.

    Nothing is ever resumed unasked. Where a run stopped before its first checkpoint both start that run again: None; where there is no run,
    "auto" starts one. No file of a checkpoint is read: see ``choose_resume``.
    """
    if resume_from_checkpoint is None or resume_from_checkpoint.lower() == "false":
        return None
    if resume_from_checkpoint.lower() in NEWEST:
        checkpoints = list_checkpoints(output_dir)
        if not checkpoints and resume_from_checkpoint.lower() == "true" and not (output_dir / RUN_FILE).exists():
            raise UserError(
                f"resume_from_checkpoint: true, but {output_dir} holds no run; take the key away to start one, or mend output_dir"
            )
        return checkpoints[-1][1] if checkpoints else None
    folder = Path(resume_from_checkpoint)
    if not (folder / STATE_FILE).exists() and not has_manifest(folder):
        known = ", ".join(path.name for _, path in list_checkpoints(output_dir)) or "none"
        raise UserError(f"resume_from_checkpoint: {folder} is not a checkpoint (no {STATE_FILE}); in {output_dir} there are: {known}")
    return folder


def choose_resume(output_dir: Path, resume_from_checkpoint: str | None) -> Resume:
    """``find_resume``, and every file of the checkpoint held to its manifest: "true" and "auto" mean the newest one that is whole.

    One that is named is taken or refused. Raises UserError with what is damaged and the newest whole checkpoint, or that there is none.
    """
    first = find_resume(output_dir, resume_from_checkpoint)
    if first is None:
        return Resume(None, [])
    if str(resume_from_checkpoint).lower() not in NEWEST:
        problems = find_damage(first)
        if problems:
            raise UserError(f"resume_from_checkpoint: {first} is damaged: {'; '.join(problems)}. {_other_choice(first)}")
        return Resume(first, _unchecked(first))
    remarks: list[str] = []
    for _, folder in reversed(list_checkpoints(output_dir)):
        problems = find_damage(folder)
        if not problems:
            return Resume(folder, remarks + _unchecked(folder))
        remarks.append(f"{folder} is passed over, it is damaged: {'; '.join(problems)}")
    raise UserError(
        f"resume_from_checkpoint: {resume_from_checkpoint}, but no checkpoint in {output_dir} is whole: {'. '.join(remarks)}. Put a good "
        "copy back, or start again with --overwrite_output_dir true instead"
    )


def _other_choice(damaged: Path) -> str:
    """What to do instead of going on from a damaged checkpoint: the newest whole one beside it, by name."""
    for _, folder in reversed(list_checkpoints(damaged.parent)):
        if folder.name != damaged.name and not find_damage(folder):
            return f"The newest whole one there is {folder.name}: --resume_from_checkpoint {folder}"
    return "There is no whole one beside it; put a good copy back, or start again"


def _unchecked(folder: Path) -> list[str]:
    if has_manifest(folder):
        return []
    return [f"{folder} has no manifest, as those of earlier versions, so its files cannot be checked before they are read"]


def refuse_foreign_run(output_dir: Path, resuming: bool, resume: Path | None, overwrite: bool) -> None:
    """Refuse a folder that holds a run, unless this run goes on with it or may overwrite it.

    resuming: whether a resume was asked for. resume: the checkpoint to go on from; None where there is none yet.
    """
    goes_on = resuming and (resume is None or resume.resolve().parent == output_dir.resolve())
    if goes_on or overwrite or not ((output_dir / RUN_FILE).exists() or list_checkpoints(output_dir)):
        return
    if resume is not None:
        raise UserError(
            f"output_dir: {output_dir} holds another run than {resume}. Name an empty folder, or the one that the checkpoint lies in"
        )
    if not list_checkpoints(output_dir):
        raise UserError(
            f"output_dir: {output_dir} already holds a run. It has no checkpoint to go on from: name another folder, or replace it by "
            "--overwrite_output_dir true"
        )
    raise UserError(
        f"output_dir: {output_dir} already holds a run. Go on with it by --resume_from_checkpoint true, name another folder, "
        "or replace it by --overwrite_output_dir true"
    )


def remove_leftovers(output_dir: Path) -> list[str]:
    """Take away what a run that was killed left half written or half removed. For who holds the folder. Returns their names.

    A checkpoint that lacks only its name gets it: where it was to replace one of the same step, that is gone already.
    """
    names = []
    for path in sorted(output_dir.glob("checkpoint-*")):
        final = path.with_suffix("")
        if path.suffix == PARTIAL and has_manifest(path) and not final.exists() and not find_damage(path):
            path.rename(final)  # the kill came between its last file and its name
        elif _LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
            names.append(path.name)
    return sorted(names) + [
        name for folder in (".", SAMPLES_FOLDER, MARGINS_FOLDER, REFERENCE_FOLDER) for name in remove_parts(output_dir / folder)
    ]


def remove_run(output_dir: Path) -> None:
    """Take away what a run wrote, and nothing else. The final model's files stay until they are replaced."""
    for path in output_dir.glob("checkpoint-*"):
        if re.fullmatch(r"checkpoint-\d+(\.abandoned)?", path.name) or _LEFTOVER.fullmatch(path.name):
            remove_checkpoint(path)
    for name in (RUN_FILE, METRICS_FILE, CURVES_FILE, ERROR_FILE, INCIDENTS_FILE, DATA_FILE, PAGE_FILE):
        (output_dir / name).unlink(missing_ok=True)


def remove_checkpoint(folder: Path) -> None:
    """Take a checkpoint away: first its name, since one that is half removed would be taken for a whole one."""
    doomed = folder if folder.name.endswith(REMOVED) else folder.with_name(folder.name + REMOVED)
    if doomed != folder:
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
    shutil.rmtree(doomed)


def set_aside_later(output_dir: Path, step: int) -> list[str]:
    """Rename the checkpoints after ``step`` to ``checkpoint-N.abandoned``: a run that goes on from ``step`` leaves them behind.

    They would be taken for the newest by a later resume, and for this run's when the oldest are let go. Returns their old names.
    """
    later = [path for number, path in list_checkpoints(output_dir) if number > step]
    for path in later:
        aside = path.with_name(path.name + ".abandoned")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    return [path.name for path in later]


def prune_checkpoints(output_dir: Path, limit: int | None, best_step: int | None) -> str | None:
    """Keep the newest ``limit`` checkpoints, and always the best one. None or 0 keeps all.

    Returns what could not be taken away, and why: nothing is lost by that but room.
    """
    if not limit:
        return None
    checkpoints = list_checkpoints(output_dir)
    kept = {step for step, _ in checkpoints[-limit:]} | {best_step}
    if best_step is not None and limit > 1 and len(kept) > limit:
        kept.discard(checkpoints[-limit][0])
    failures = []
    for step, path in checkpoints:
        if step not in kept:
            try:
                remove_checkpoint(path)
            except OSError as error:
                failures.append(f"{path} cannot be removed: {error.strerror or error}")
    return "; ".join(failures) or None
