"""How a key is declared: a dataclass field with its meaning, its default and what it may be."""

from dataclasses import field, fields
from typing import Any

DEFAULT_MARK = " Default: "


def key(meaning: str, default: Any, *, choices: tuple[str, ...] = (), metavar: str = "") -> Any:
    """A dataclass field whose help ends in its default, with a short name for the value in ``--help``.

    A boolean whose default is true must have no metavar: PdArgumentParser passes it on to its ``--no_key`` switch, where argparse
    does not take it.
    """
    shown = "unset" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
    metadata: dict[str, Any] = {"help": f"{meaning}{DEFAULT_MARK}{shown}."}
    if choices:
        metadata["choices"] = list(choices)
    elif metavar:
        metadata["metavar"] = metavar
    elif default is False:
        metadata["metavar"] = "true|false"
    return field(default=default, metadata=metadata)


def required(meaning: str, metavar: str) -> Any:
    """A dataclass field that the user must set."""
    return field(metadata={"help": f"{meaning} Required.", "metavar": metavar})


def same(cls: type, name: str) -> Any:
    """A dataclass field as another group of keys has it: the same meaning, default and choices, under the same name."""
    item = next(item for item in fields(cls) if item.name == name)
    return field(default=item.default, metadata=item.metadata)
