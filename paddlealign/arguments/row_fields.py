"""The keys that say what stands in the rows and which of them are taken, and what is wrong with them together."""

import math
from dataclasses import dataclass
from typing import Optional

from paddlealign.arguments.declare import key as _key
from paddlealign.arguments.declare import same

ROW_FORMS = (
    "auto", "src_tgt", "messages", "plaintext", "chatpair", "alpaca", "sharegpt", "hh", "pairs", "paddlenlp", "shp", "stack_exchange",
    "ranked", "labelled",
)  # fmt: skip
PARTS = ("sft", "reward", "dpo")
_PAIR_FORMS = ("pairs", "hh", "paddlenlp", "shp", "stack_exchange", "ranked")
_COLUMNS = ("prompt_key", "response_key", "chosen_key", "rejected_key", "messages_key", "system_prompt_key")


@dataclass(frozen=True)
class RowArguments:
    """What stands in the rows, and which of them are taken (sft, reward, dpo)."""

    _argument_group_name = "rows"

    row_form: str = _key(
        "The form of the rows (data/README.md shows each); auto: each file's is found out from its rows and told. In SFT a form of pairs "
        "trains on the chosen answers alone.",
        "auto",
        choices=ROW_FORMS,
    )
    pairs: str = _key(
        "Which pairs are made of answers with scores: the best with the worst, every two, or every two that are neighbours by score.",
        "best_worst",
        choices=("best_worst", "all", "adjacent"),
    )
    prompt_key: Optional[str] = _key("Column of the prompt, where it is not called prompt.", None, metavar="COLUMN")
    response_key: Optional[str] = _key("Column of the answer (sft; kto's completion), likewise.", None, metavar="COLUMN")
    chosen_key: Optional[str] = _key("Column of the better answer, likewise.", None, metavar="COLUMN")
    rejected_key: Optional[str] = _key("Column of the worse answer, likewise.", None, metavar="COLUMN")
    messages_key: Optional[str] = _key("Column of the conversation, likewise.", None, metavar="COLUMN")
    system_prompt_key: Optional[str] = _key("Column of the system text, where it is not called system.", None, metavar="COLUMN")
    system_prompt: Optional[str] = _key("System text of the rows that have a prompt and no system text of their own.", None, metavar="TEXT")
    on_bad_row: str = _key(
        "What a row that cannot be read does: error ends the command with the first such rows by file, line and column; skip leaves them "
        "out, counts them by reason, and writes them to a file of refused rows.",
        "error",
        choices=("error", "skip"),
    )
    split: str = _key("Which split of a data folder holds the training rows.", "train", metavar="NAME")
    dev_split: Optional[str] = _key(
        "Which split holds the evaluation rows; unset: the first that is there of dev, validation, valid, val, eval, test.",
        None,
        metavar="NAME",
    )
    subset: Optional[list[str]] = _key(
        "Which of a data folder's subsets (its folders of rows) are read, one or several; all takes every one.", None, metavar="NAME"
    )
    dataset_weights: Optional[str] = _key(
        "For each path in train_dataset_path (or dataset_name_or_path), how much of its rows an epoch takes (a list, or commas): 1 all of "
        "them, 0.25 a quarter, the next epoch the next one, 3 all three times. Unset: 1 each.",
        None,
        metavar="NUMBERS",
    )
    data_split: Optional[str] = _key(
        "Shares of the training rows for SFT, reward model and DPO, such as 5,0,5: a row's prompt decides by its hash which of the three "
        "has it, on every machine.",
        None,
        metavar="SFT,REWARD,DPO",
    )
    data_split_part: Optional[str] = _key("Whose share of data_split is taken; unset: that of the command.", None, choices=PARTS)


@dataclass(frozen=True)
class PromptRowArguments:
    """What the columns of the prompts are called, and what becomes of bad rows (predict, evaluate compare)."""

    _argument_group_name = "rows"

    prompt_key: Optional[str] = same(RowArguments, "prompt_key")
    messages_key: Optional[str] = same(RowArguments, "messages_key")
    system_prompt_key: Optional[str] = same(RowArguments, "system_prompt_key")
    system_prompt: Optional[str] = same(RowArguments, "system_prompt")
    on_bad_row: str = same(RowArguments, "on_bad_row")


@dataclass(frozen=True)
class AnswerRowArguments:
    """What the columns of prompts and answers are called, and what becomes of bad rows (evaluate judge)."""

    _argument_group_name = "rows"

    prompt_key: Optional[str] = same(RowArguments, "prompt_key")
    response_key: Optional[str] = _key("Column of the answer, where it is not called response or output.", None, metavar="COLUMN")
    messages_key: Optional[str] = same(RowArguments, "messages_key")
    system_prompt_key: Optional[str] = same(RowArguments, "system_prompt_key")
    system_prompt: Optional[str] = same(RowArguments, "system_prompt")
    on_bad_row: str = same(RowArguments, "on_bad_row")


@dataclass(frozen=True)
class ScoredRowArguments:
    """What the columns of answers and pairs are called, and what becomes of bad rows (evaluate rewards and perplexity)."""

    _argument_group_name = "rows"

    prompt_key: Optional[str] = same(RowArguments, "prompt_key")
    response_key: Optional[str] = same(AnswerRowArguments, "response_key")
    chosen_key: Optional[str] = same(RowArguments, "chosen_key")
    rejected_key: Optional[str] = same(RowArguments, "rejected_key")
    messages_key: Optional[str] = same(RowArguments, "messages_key")
    system_prompt_key: Optional[str] = same(RowArguments, "system_prompt_key")
    system_prompt: Optional[str] = same(RowArguments, "system_prompt")
    on_bad_row: str = same(RowArguments, "on_bad_row")


ReadRowArguments = PromptRowArguments | AnswerRowArguments | ScoredRowArguments


def numbers(text: str) -> list[float]:
    """Numbers with commas between them; ValueError where they are none, negative or not finite."""
    found = [float(part) for part in text.split(",")]
    if not all(0 <= number < math.inf for number in found):
        raise ValueError(text)
    return found


def rows_kind(command: str, loss_type: str) -> str:
    """What kind of rows a command reads: "sft", "preference", or "labelled" where DPO's loss is kto."""
    return "sft" if command == "sft" else "labelled" if loss_type == "kto" else "preference"


def column_names(rows: RowArguments, kind: str) -> dict[str, str]:
    """Our name of a column -> the file's, for those that the keys name, differ, and stand in rows of the kind."""
    return _renamed({name: getattr(rows, name) for name in _COLUMNS if name not in _unread_columns(rows, kind)})


def read_columns(rows: ReadRowArguments) -> dict[str, str]:
    """The same for the commands that do not train."""
    return _renamed({name: getattr(rows, name) for name in _COLUMNS if hasattr(rows, name)})


def _renamed(names: dict[str, str | None]) -> dict[str, str]:
    ours = {name: "system" if name == "system_prompt_key" else name.removesuffix("_key") for name in names}
    return {ours[name]: column for name, column in names.items() if column is not None and column != ours[name]}


def _unread_columns(rows: RowArguments, kind: str) -> dict[str, str]:
    """Keys of columns that rows of a kind do not have, and why."""
    if kind == "sft" and rows.row_form not in _PAIR_FORMS:
        return dict.fromkeys(("chosen_key", "rejected_key"), "SFT rows have no pairs; row_form pairs trains on the chosen answers")
    return {"response_key": "the rows are pairs"} if kind != "labelled" else {}


def row_problems(rows: RowArguments, command: str, sources: int) -> list[str]:
    """What is wrong with the keys together. sources: how many paths the training rows come from."""
    problems = column_problems(rows)
    if rows.dataset_weights is not None:
        problems += _weight_problems(rows.dataset_weights, sources)
    if rows.data_split is not None:
        problems += _share_problems(rows.data_split, rows.data_split_part or command)
    return problems


def column_problems(rows: RowArguments | ReadRowArguments) -> list[str]:
    """Whether two keys name one column."""
    named = {name: getattr(rows, name) for name in _COLUMNS if getattr(rows, name, None) is not None}
    columns = list(named.values())
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is None:
        return []
    keys = [name for name, column in named.items() if column == twice]
    return [f"{' and '.join(keys)} name the same column, {twice}. A column is one thing."]


def _weight_problems(text: str, sources: int) -> list[str]:
    try:
        weights = numbers(text)
    except ValueError:
        return [f"dataset_weights {text}: numbers above 0 are needed, one for each path of training rows, with commas."]
    if not all(weights):
        return [f"dataset_weights {text}: a path of weight 0 has no rows to give; leave the path out."]
    if len(weights) != sources:
        return [f"dataset_weights {text}: {len(weights)} numbers, and there are {sources} paths of training rows; one for each is needed."]
    return []


def _share_problems(text: str, part: str) -> list[str]:
    try:
        shares = numbers(text)
    except ValueError:
        shares = []
    if len(shares) != len(PARTS) or not sum(shares):
        return [f"data_split {text}: three numbers are needed, the shares of SFT, reward model and DPO, such as 5,0,5."]
    if not shares[PARTS.index(part)]:
        return [f"data_split {text} leaves no rows for {part}. Raise its share, or set data_split_part."]
    return []


def unread_row_keys(rows: RowArguments, kind: str, trains: bool, evaluates: bool) -> list[tuple[bool, str, str]]:
    """Rules for ``checks.unread_keys``: whether a key is not read, the key, and why."""
    return [
        *((True, key, why) for key, why in _unread_columns(rows, kind).items()),
        (kind == "sft", "pairs", "SFT takes the best answer"),
        (not trains, "split", "do_train is false"),
        (not trains, "dataset_weights", "do_train is false"),
        (not trains, "data_split", "do_train is false"),
        (
            not trains or rows.data_split is None,
            "data_split_part",
            "there is no data_split to share",
        ),
        (not evaluates, "dev_split", "do_eval is false and evaluation_strategy no"),
    ]


def shares(rows: RowArguments, command: str) -> tuple[float, float] | None:
    """From where to where the command's share lies between 0 and 1, or None where data_split is unset."""
    if rows.data_split is None:
        return None
    given = numbers(rows.data_split)
    index = PARTS.index(rows.data_split_part or command)
    return sum(given[:index]) / sum(given), sum(given[: index + 1]) / sum(given)
