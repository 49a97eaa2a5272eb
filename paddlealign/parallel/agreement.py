"""Were all processes told the same? In words, without Paddle."""

from collections.abc import Mapping, Sequence


def disagreement(told: Sequence[Mapping[str, str]]) -> str | None:
    """How the first process that was told something else than process 0 differs, for the user; None where all were told the same.

    told: of each process, by what it is of, a text that must be the same.
    """
    for rank, theirs in enumerate(told):
        names = [name for name in {**told[0], **theirs} if theirs.get(name) != told[0].get(name)]
        if names:
            what = "; another ".join(f"{name} than process 0: {theirs.get(name)}, not {told[0].get(name)}" for name in names)
            return (
                f"process {rank} was started with another {what}. All processes must be given the same argument file, data and model; "
                "look at each machine's copy."
            )
    return None
