"""The arguments for people and for run.json, and the reference table in docs/arguments.md."""

import textwrap
import unicodedata
from dataclasses import asdict
from typing import Any

from paddlealign.arguments.declare import DEFAULT_MARK
from paddlealign.arguments.degrees import PARALLEL_KEYS, Degrees
from paddlealign.arguments.fields import MAIN_SCRIPTS, SECTIONS
from paddlealign.arguments.foreign import ALIASES, HINTS, ONLY
from paddlealign.arguments.parsing import known_fields
from paddlealign.arguments.results import Arguments
from paddlealign.arguments.values import show
from paddlealign.messages.language import translated

_GIVEN = ("command line", "file")
_ORDER = (*_GIVEN, "derived", "default")
_WIDTH = 118
_LABEL = 13  # columns before the text of a block's lines


def arguments_dict(arguments: Arguments) -> dict[str, Any]:
    """For run.json: command, file, {section: {key: {value, source}}} and the notes. Only plain JSON values."""
    return {
        "command": arguments.command,
        "file": arguments.file,
        "arguments": {
            section: {key: {"value": value, "source": arguments.sources[key]} for key, value in values.items()}
            for section, values in _sections(arguments).items()
        },
        "notes": list(arguments.notes),
    }


def render(arguments: Arguments) -> str:
    """The effective arguments, a paragraph a section: what the user set first, then what follows from it, then the defaults."""
    lines = [f"arguments of {MAIN_SCRIPTS[arguments.command]}" + (f" (file: {arguments.file})" if arguments.file else "")]
    for section, values in _sections(arguments).items():
        title = f"  {section}"
        for source in _ORDER:
            items = [f"{key} {_bare(value)}" for key, value in values.items() if arguments.sources[key] == source]
            if items:
                # a key stays together with its value where a line is broken
                text = ", ".join(items).replace(" ", "\u00a0").replace(",\u00a0", ", ")
                lead = f"{title:<14}{source + ':':<14}"
                wrapped = textwrap.fill(text, _WIDTH, initial_indent=lead, subsequent_indent=" " * 28, break_long_words=False)
                lines.append(wrapped.replace("\u00a0", " "))
                title = ""
    return "\n".join(lines)


def render_given(arguments: Arguments) -> str:
    """The arguments that the user gave, under the command's name."""
    title = f"{MAIN_SCRIPTS[arguments.command]}{f' {arguments.file}' if arguments.file else ''} (--log_level debug shows all arguments)"
    return f"{title}\n{labelled('arguments', ', '.join(given_arguments(arguments)))}"


def given_arguments(arguments: Arguments) -> list[str]:
    """Key and value of each argument that the user gave: on the command line, then in the file; of each those first that are no defaults.

    One that equals its default is there too: on the command line it may stand against the file.
    """
    sections = [(key, value) for values in _sections(arguments).values() for key, value in values.items()]
    defaults = {key: item.default for key, item in known_fields(arguments.command).items()}
    return [
        f"{key} {_bare(value)}".replace(" ", "\u00a0")
        for source in _GIVEN
        for is_default in (False, True)
        for key, value in sections
        if arguments.sources[key] == source and (value == defaults[key]) == is_default
    ]


def labelled(label: str, text: str) -> str:
    """A line of a block: its label, and the text in a column of its own, over several lines where it is long.

    A key stays together with its value where these are joined by a no-break space, which becomes a plain one.
    """
    title, indent = translated(f"  {label}"), " " * _LABEL
    lead = title + " " * (_LABEL - columns(title))
    lines = textwrap.wrap(
        translated(text), _WIDTH, initial_indent=lead, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace("\u00a0", " ")


def columns(text: str) -> int:
    """How wide a text is on a terminal, where Chinese letters take two columns each."""
    return sum(2 if unicodedata.east_asian_width(letter) in "FW" else 1 for letter in text)


def _sections(arguments: Arguments) -> dict[str, dict[str, Any]]:
    return {section: asdict(getattr(arguments, section)) for section in SECTIONS[arguments.command]}


def _bare(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(value) + "]"
    return "unset" if value is None else value if isinstance(value, str) else show(value)


def reference_page() -> str:
    """The whole text of docs/arguments.md, from the dataclasses and the tables of other keys."""
    parts = [_INTRO]
    for title, commands in (
        ("sft_main.py, reward_main.py and dpo_main.py", ("sft", "reward", "dpo")),
        ("predict.py", ("predict",)),
        *((MAIN_SCRIPTS[name], (name,)) for name in SECTIONS if name.startswith("evaluate_")),
        (MAIN_SCRIPTS["export"], ("export",)),
        (MAIN_SCRIPTS["plan"], ("plan",)),
    ):
        parts.append(f"## {title}\n")
        done: set[tuple[str, ...]] = set()
        for command in commands:
            for section in SECTIONS[command]:
                rows = [(key, item) for key, item in known_fields(command).items() if item.section == section]
                keys = tuple(key for key, _ in rows)
                if keys not in done:
                    having = [name for name in commands if SECTIONS[name].get(section) is SECTIONS[command][section]]
                    only = f" ({', '.join(MAIN_SCRIPTS[name] for name in having)})" if len(having) < len(commands) else ""
                    parts.append(f"### {section}{only}\n\n| key | type | default | meaning |\n|---|---|---|---|")
                    parts += [_row(key, item) for key, item in rows]
                    parts.append("")
                done.add(keys)
    parts.append("## Other names\n\nEach is told once when it is used.\n\n| name | read as | where |\n|---|---|---|")
    parts += [f"| `{name}` | `{alias.key}` | {', '.join(alias.commands)} |" for name, alias in ALIASES.items()]
    parts.append(f"\n## Parallel keys\n\n{_PARALLEL}\n\n{', '.join(f'`{key}`' for key in PARALLEL_KEYS if key not in Degrees._fields)}\n")
    parts.append("## Keys that are refused unless they ask for nothing\n\n| key | allowed | why |\n|---|---|---|")
    parts += [f"| `{key}` | {', '.join([show(v) for v in rule.allowed] + ['null'])} | {rule.why} |" for key, rule in ONLY.items()]
    parts.append("\n## Keys with nothing to do\n\nTold once when they are set, silent where they are off.\n\n| keys | why |\n|---|---|")
    reasons: dict[str, list[str]] = {}
    for key, hint in HINTS.items():
        reasons.setdefault(hint.why, []).append(f"`{key}`")
    parts += [f"| {', '.join(keys)} | {why} |" for why, keys in reasons.items()]
    return "\n".join(parts) + "\n"


def _row(key: str, item: Any) -> str:
    meaning, _, default = item.help.removesuffix(".").rpartition(DEFAULT_MARK)
    if item.required:
        meaning, default = item.help.removesuffix(" Required."), "required"
    kind = " \\| ".join(item.choices) if item.choices else "texts" if item.kind is list else item.kind.__name__
    return f"| `{key}` | {kind} | {default} | {meaning.replace('|', chr(92) + '|')} |"


_INTRO = """# Arguments

This page is written by `python -m paddlealign.arguments docs/arguments.md`; a test holds it in step with the code.

    python sft_main.py [ARGS.json] [--key value ...]

Keys stand in a JSON file, on the command line, or both; the command line wins. Names, meanings and defaults are PaddleNLP's; other tools'
files are read as [dialects.md](dialects.md) says. JSON `null` (on the command line `null` or `None`) unsets a key. A boolean is switched on
by `--key` and off by `--no_key` or `--key false`.

Where a default or a meaning differs from PaddleNLP's:

- `device` is auto, not gpu. `report_to` is none, not everything that is installed. `dtype` of predict.py is auto, not required.
- `max_length` of dpo_main.py bounds the prompt and one answer; PaddleNLP's `max_seq_len` bounds the prompt and both.
- PaddleNLP's DPO packs rows always and counts batches in packed rows; here that is `zero_padding`, and without it batches count pairs.
- A row that is too long is left out and counted (`truncation` drop), so that every scored token keeps its whole context; PaddleNLP cuts.
- `chat_template` takes a name or a .jinja file, not PaddleNLP's chat_template.json.
- `do_eval` with `evaluation_strategy` no evaluates once, after training; PaddleNLP switches to every `eval_steps`.
- `resume_from_checkpoint` is honoured, and nothing is resumed without it.
- `greedy_zero_padding` packs without `zero_padding` too.
- `length_penalty` is the power of the length that a sum of log-probabilities is divided by, as in transformers; PaddleNLP takes the
  power of (5 + length) / 6. `diversity_rate` works between groups only; PaddleNLP's siblings search (one group) is refused.
"""

_PARALLEL = (
    "`python -m paddle.distributed.launch` starts several processes, and `tensor_parallel_degree`, `pipeline_parallel_degree` and "
    "`data_parallel_degree` (see parallel, above) say what each does; their product is the number of processes. The keys below are refused "
    "there, unless they ask for nothing. In one process a degree above 1, or one of these keys, is told in one line and the run goes on, "
    "because one process computes the same numbers. Export runs in one process."
)
