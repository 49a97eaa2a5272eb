"""The keys of what a command says, for ``fields.SECTIONS``."""

from dataclasses import dataclass

from paddlealign.arguments.declare import key


@dataclass(frozen=True)
class ScreenArguments:
    """What is said on the screen (all commands)."""

    _argument_group_name = "screen"

    log_level: str = key(
        "How much is said: info; debug: also every argument with its source, and what Paddle says of itself; warning: notes, warnings and "
        "results alone; error: results and errors alone.",
        "info",
        choices=("debug", "info", "warning", "error"),
    )
