"""The viewers of curves that ``report_to`` may name."""

from paddlealign.arguments.values import show

VIEWERS = ("visualdl", "tensorboard", "wandb")


def viewers_of(report_to: str) -> tuple[str, ...]:
    """The viewers that are named, each once. Raises ValueError whose text goes on from "report_to: "."""
    names = tuple(dict.fromkeys(name.strip() for name in report_to.split(",") if name.strip()))
    for name in names:
        if name not in ("none", *VIEWERS):
            raise ValueError(f"{show(name)} is not allowed; allowed: none, or one or several of {', '.join(VIEWERS)}.")
    if "none" in names and len(names) > 1:
        raise ValueError(f"{show(report_to)} is not allowed; none stands alone.")
    return tuple(name for name in names if name != "none")
