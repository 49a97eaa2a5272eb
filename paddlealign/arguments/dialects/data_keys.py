"""What other tools say about their rows, and our keys for it: which column holds what, which part of a data set is read."""

from typing import Any

from paddlealign.arguments.dialects.reading import Reading

OUR_ROWS = ("dataset_name_or_path", "train_dataset_path")
# What another tool may ask for -> our key, where the command has it, and what to do where it has not.
WISHES: dict[str, tuple[str, str]] = {
    "split": ("split", "Training reads train.json, train.jsonl or train/ of a folder; set --train_dataset_path to the other split's file."),
    "subset": ("subset", "Set --train_dataset_path to the files of the subset."),
    "share": ("data_split", "Write each stage's share of the rows to a file of its own, and set --train_dataset_path to it."),
    "system_prompt": ("system_prompt", 'Put "system": "..." into the rows, and leave it out.'),
    "eval_rows": ("", "Set --dev_dataset_path to a file of so many rows."),
}
# A part of a row -> our key for its column, and the column that is read where there is no such key.
_ANSWERS = {
    "prompt": ("prompt_key", "src"),
    "response": ("response_key", "tgt"),
    "messages": ("messages_key", "messages"),
    "system": ("system_prompt_key", "system"),
    "tools": ("", "tools"),
}
_PAIRS = {
    "prompt": ("prompt_key", "prompt"),
    "chosen": ("chosen_key", "chosen"),
    "rejected": ("rejected_key", "rejected"),
    "messages": ("messages_key", "prompt"),
    "system": ("system_prompt_key", "system"),
    "tools": ("", "tools"),
}
COLUMNS = {"sft": _ANSWERS, "reward": _PAIRS, "dpo": _PAIRS}


def take_wish(reading: Reading, theirs: str, wish: str, value: Any, unless: tuple[str, ...] = OUR_ROWS) -> None:
    """Hand a wish about the rows to our key for it, or refuse it with what to do instead.

    unless: keys of ours that settle it on the command line, as other rows do.
    """
    ours, instead = WISHES[wish]
    if reading.has(ours):
        reading.take(theirs, ours, value)
    else:
        reading.refuse(theirs, f"is not here. {instead}", unless=unless)


def take_column(reading: Reading, theirs: str, part: str, name: str) -> None:
    """The column that holds a part of a row: told where it is the one that is read, else handed to our key, or refused."""
    key, fixed = COLUMNS[reading.command][part]
    ours = part if reading.has(key) else fixed
    if name == ours:
        reading.ignore(theirs, "the column that is read here", name)
    elif reading.has(key):
        reading.take(theirs, key, name)
    elif any(given in reading.setting.given for given in OUR_ROWS):
        reading.ignore(theirs, f'not read: the command line names the rows, whose column is "{ours}"', name)
    else:
        reading.refuse(theirs, f'is the column "{name}"; the column that is read here is "{ours}". Rename it in the rows.')


def refuse_named(reading: Reading, theirs: str) -> None:
    """Data sets by a name that no hub knows, or as a whole, are folders here, which the command line gives; the rows tell their form."""
    told = "Download it" if reading.has("row_form") else "Download it, write its rows as data/README.md shows them"
    reading.refuse(
        theirs, f"is fetched and cut to pieces there, and is a folder here. {told}, and add --{OUR_ROWS[0]} FOLDER.", unless=OUR_ROWS
    )
