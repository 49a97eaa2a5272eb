"""Write the tables of docs/from_*.md from the code that reads other tools' keys, or hold the pages to it.

    python -m scripts.migration_page docs            write the tables
    python -m scripts.migration_page docs --check    fail where a page does not say what the code does

Each key of scripts/migration_examples.py is handed to its dialect with a value, as if a file for eight processes had it.
Keys that a dialect knows by a rule are all shown.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from paddlealign.arguments.dialects import deepspeed_chat, dpo_paper, trinity, verl
from paddlealign.arguments.dialects.paddlenlp import read_paddlenlp
from paddlealign.arguments.dialects.reading import Entry, Ignored, Reading, Renamed, Rule, Setting, Unless, Where, show_plain
from paddlealign.arguments.dialects.trinity_rows import ROWS
from paddlealign.arguments.fields import SECTIONS
from paddlealign.arguments.foreign import ALIASES, HINTS, ONLY
from paddlealign.arguments.json_file import read_argument_file
from paddlealign.arguments.parsing import known_fields
from scripts import migration_examples as given
from scripts.marks import fill, split

ROOT = Path(__file__).resolve().parents[1]
HEAD = "| their key | for example | here | how it is read |\n|---|---|---|---|"
TRAINING = ("sft", "reward", "dpo")
# Long prefixes are left out of the tables; the pages say so.
SHORT = {f"{verl.ROOT}.actor_rollout_ref.": "", f"{ROWS}.": "experience_buffer."}
Reader = Callable[[dict[str, Entry], Setting], Reading]


def short(key: str) -> str:
    """A key as the table shows it."""
    for prefix, shown in SHORT.items():
        key = key.replace(prefix, shown, 1) if key.startswith(prefix) else key
    return f"`{key}`"


def cell(text: str) -> str:
    """Text that stands in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def probed(read: Reader, base: Mapping[str, Any], example: given.Example) -> str:
    """The row of one example: what the dialect makes of it beside the base."""
    key, value, beside = (*example, {})[:3]
    entries = {name: Entry(it, "file") for name, it in {**base, **beside, key: value}.items()}
    reading = read(entries, Setting(None, 8, {}, {}, lambda _: 4096))
    lines = [line for line in reading.lines if line.theirs == key]
    starts = (f"file: {key} {show_plain(value)}: ", f"file: {key}: ")
    problems = [text.removeprefix(start) for start in starts for text in reading.problems if text.startswith(start)]
    if not lines and not problems:
        raise AssertionError(f"{key}: the dialect says nothing of it")
    ours = ", ".join(f"`{line.ours}` {line.value}".rstrip() for line in lines if line.ours)
    why = "; ".join(dict.fromkeys(line.why for line in lines if line.why))
    told = f"| refused | {cell(problems[0])} |" if problems else f"| {cell(ours or 'nothing to do')} | {cell(why)} |"
    shown = f"`{show_plain(value)}`" if value not in ("", None) else ""
    return f"| {short(key)} | {cell(shown)} {told}"


def ruled(rules: Mapping[str, Rule]) -> list[str]:
    """The rows of the keys that a dialect knows by a rule, without those that have nothing to do; first those of our names."""
    same = [short(key) for key, rule in rules.items() if isinstance(rule, Renamed) and rule == Renamed(key)]
    rows = [f"| {', '.join(same)} | | the same | |"] if same else []
    for key, rule in rules.items():
        if isinstance(rule, Where):
            rows.append(f"| {short(key)} | | `{rule.key}` | where the command has it |")
        elif isinstance(rule, Renamed) and rule != Renamed(key):
            rows.append(f"| {short(key)} | | `{rule.key}` | {cell(rule.remark)} |")
        elif isinstance(rule, Unless):
            allowed = " or ".join(f"`{show_plain(value)}`" for value in rule.allowed)
            rows.append(f"| {short(key)} | | refused{f' unless {allowed}' if allowed else ''} | {cell(f'{rule.why}. {rule.fix}')} |")
    return rows


def idle(reasons: Mapping[str, str]) -> list[str]:
    """Keys and sections that have nothing to do, a line for each reason."""
    by_reason = dict[str, list[str]]()
    for key, why in reasons.items():
        by_reason.setdefault(why, []).append(short(key))
    return ["", "Nothing to do here:", "", *(f"- {', '.join(keys)}: {why}." for why, keys in by_reason.items())]


def table(
    read: Reader, base: Mapping[str, Any], examples: list[given.Example], rules: Mapping[str, Rule], sections: Mapping[str, str]
) -> list[str]:
    """A dialect's examples, its rules without those that an example shows, and below what has nothing to do."""
    shown = {example[0] for example in examples}
    left = {key: rule for key, rule in rules.items() if key not in shown}
    reasons = {key: rule.why for key, rule in left.items() if isinstance(rule, Ignored)}
    reasons |= {key: why for key, why in sections.items() if key not in shown}
    return [HEAD, *(probed(read, base, it) for it in examples), *ruled(left), *idle(reasons)]


def from_trinity() -> list[str]:
    """Trinity-RFT and, under trainer_config, verl."""
    sections = {**trinity.IGNORED_SECTIONS, **verl.IGNORED_SECTIONS}
    return table(trinity.read_trinity, given.TRINITY_BASE, given.TRINITY, {**trinity.RULES, **verl.RULES}, sections)


def from_dpo_paper() -> list[str]:
    """The DPO paper's code."""
    return table(dpo_paper.read_dpo_paper, given.DPO_PAPER_BASE, given.DPO_PAPER, dpo_paper.RULES, {"wandb": "no such service is used"})


def from_deepspeed_chat() -> list[str]:
    """DeepSpeed-Chat: every flag that its dialect knows."""
    return table(deepspeed_chat.read_deepspeed_chat, given.DEEPSPEED_CHAT_BASE, given.DEEPSPEED_CHAT, deepspeed_chat.RULES, {})


def fields_of(commands: Iterable[str]) -> dict[str, list[str]]:
    """Our keys with the commands that have them."""
    found = dict[str, list[str]]()
    for command in commands:
        for key in known_fields(command):
            found.setdefault(key, []).append(command)
    return found


def from_paddlenlp() -> list[str]:
    """Every key of PaddleNLP's own example files, and the names that are ours by another name."""
    same, rows = list[str](), list[str]()
    for name, command in given.PADDLENLP_FILES.items():
        file = read_argument_file(ROOT / name)
        for line in read_paddlenlp(file, Setting(command, 8, {}, {}, lambda _: 4096)).lines:
            plain = line.theirs == line.ours and not line.why
            row = f"| {short(line.theirs)} | {f'`{line.ours}`' if line.ours else 'nothing to do'} | {cell(line.why)} |"
            found, it = (same, short(line.theirs)) if plain else (rows, row)
            found += [it] if it not in found else []
    rows = [f"The same name: {', '.join(same)}.", "", "| their key | here | how it is read |\n|---|---|---|", *rows]
    rows.append("\n| other name | here | where | what a DPO user should know |\n|---|---|---|---|")
    for name, alias in ALIASES.items():
        every = set(alias.commands) >= set(SECTIONS) - {"export", "plan"}
        where = "training" if alias.commands == TRAINING else "every command" if every else ", ".join(alias.commands)
        rows.append(f"| `{name}` | `{alias.key}` | {where} | {cell(alias.dpo_remark)} |")
    return rows


def from_trl() -> list[str]:
    """TRL's keys: those of the same name, then the others one by one."""
    ours = fields_of(TRAINING)
    same = [f"`{key}`" for key in given.TRL_KEYS if key in ours]
    rows = [f"The same name and meaning: {', '.join(same)}.", "", "| TRL's key | here | what differs |\n|---|---|---|"]
    for key in given.TRL_KEYS:
        if key in ours:
            continue
        if key in ALIASES:
            rows.append(f"| `{key}` | `{ALIASES[key].key}` | understood by its name there, too |")
        elif key in ONLY:
            allowed = ", ".join(f"`{show_plain(value)}`" for value in (*ONLY[key].allowed, None))
            rows.append(f"| `{key}` | {allowed} only | {cell(ONLY[key].why)} |")
        else:
            rows.append(f"| `{key}` | nothing to do | {cell(HINTS[key].why)} |")
    for key, (keys, remark) in given.TRL_OTHER.items():
        unknown = [name for name in keys if name not in ours]
        if unknown:
            raise AssertionError(f"{key}: there is no key {unknown}")
        rows.append(f"| `{key}` | {', '.join(f'`{name}`' for name in keys) or 'none'} | {cell(remark)} |")
    return rows


PAGES: dict[str, Callable[[], list[str]]] = {
    "from_paddlenlp.md": from_paddlenlp,
    "from_trl.md": from_trl,
    "from_trinity_rft.md": from_trinity,
    "from_deepspeed_chat.md": from_deepspeed_chat,
    "from_dpo_paper.md": from_dpo_paper,
}


def main(folder: Path, check: bool) -> int:
    """Write the tables into the pages of a folder, or say which of them is not as the code has it."""
    found = []
    for name, rows in PAGES.items():
        written = "\n".join(rows())
        if not check:
            fill(folder / name, "table", written)
        elif split(folder / name, "table")[1] != written:
            found.append(f"{name} is not what the code says; run: python -m scripts.migration_page docs")
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--check" in sys.argv[2:]))
