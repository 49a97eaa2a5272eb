"""What a dialect makes of another tool's configuration: our keys, a line about each of theirs, and what is refused."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from paddlealign.arguments.fields import SECTIONS
from paddlealign.arguments.given import Given
from paddlealign.arguments.results import Told
from paddlealign.arguments.values import show

THEIR_DEFAULT = "their default"
_ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*(?P<name>\w+)\s*(?P<default>,[^{}]*)?\}|\$(?P<plain>[A-Za-z_]\w*)|\$\{(?P<braced>[^{}]+)\}")
_PLACEHOLDER = "/PATH/TO/"
_FOLDED = 6  # ignored keys of one section above this number make one line


class Entry(NamedTuple):
    """A key's value as the file or the command line has it. where: "dpo.yaml, line 4", or "command line"."""

    value: Any
    where: str


@dataclass(frozen=True)
class Renamed:
    """A key that means what ours means. remark: what is to be said about it."""

    key: str
    remark: str = ""


@dataclass(frozen=True)
class Ignored:
    """A key with nothing to do here, whatever it says."""

    why: str


@dataclass(frozen=True)
class Unless:
    """A key that asks for something that is not here, unless it has one of these values. fix: what to do instead."""

    allowed: tuple[Any, ...]
    why: str
    fix: str = "Leave it out."


@dataclass(frozen=True)
class Where:
    """A key that is ours where the command has ours, and what ``otherwise`` says where it has not."""

    key: str
    otherwise: Ignored | Unless


Rule = Renamed | Ignored | Unless | Where


@dataclass(frozen=True)
class Setting:
    """What a dialect must know beside the configuration itself.

    command: of the run, or None where the configuration says it. processes: that are started; None: as many as it asks for. given: our
    keys on the command line, which win. environment: for $NAME. positions: a model's folder -> the most tokens that it takes, or None.
    """

    command: str | None
    processes: int | None
    given: Mapping[str, Any]
    environment: Mapping[str, str]
    positions: Callable[[str], int | None]

    def whole(self, key: str) -> int | None:
        """A whole number above 0 that the command line gives one of our keys, else None."""
        text = str(self.given.get(key, ""))
        return int(text) if text.isdigit() and int(text) > 0 else None


@dataclass
class Reading:
    """What has been read so far; a dialect fills it key by key.

    machines, devices: that the configuration asks for, devices on each. taken: our key -> theirs that it comes from.
    """

    dialect: str
    entries: Mapping[str, Entry]
    setting: Setting
    command: str = ""
    machines: int = 1
    devices: int | None = None
    keys: dict[str, Given] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    lines: list[Told] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    @property
    def started(self) -> int:
        """The processes of the run: those that are started, or else those that the configuration asks for."""
        return self.setting.processes or self.machines * (self.devices or 1)

    def has(self, ours: str) -> bool:
        """Whether the command has a key."""
        return any(ours == item.name for cls in SECTIONS[self.command].values() for item in fields(cls))

    def get(self, theirs: str, default: Any = None) -> Any:
        """The value of one of their keys, with $NAME and ${...} replaced; the default where it is missing, null or empty."""
        entry = self.entries.get(theirs)
        if entry is None:
            return default
        self.seen.add(theirs)
        value = self._replaced(theirs, entry.value, ())
        return default if value in (None, "", [], {}) else value

    def number(self, theirs: str, default: Any, kind: type = int) -> Any:
        """The same for a number; a problem, and the default, where it is none."""
        value = self.get(theirs, default)
        good = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if value is None or good:
            return value
        self.refuse(theirs, f"a {'whole ' if kind is int else ''}number is needed.")
        return default

    def where(self, theirs: str) -> str:
        """For a message: "dpo.yaml, line 4: buffer.train_batch_size"."""
        entry = self.entries.get(theirs)
        return f"{entry.where}: {theirs}" if entry else f"{theirs} ({THEIR_DEFAULT})"

    def take(self, theirs: str, ours: str, value: Any, remark: str = "") -> None:
        """Our key gets a value because of one of theirs, which may be a default of theirs that the configuration does not write.

        theirs: their key; words with a space for what no key says. Of two of their keys that are written for one of ours the first wins.
        """
        self.seen.add(theirs)
        earlier = self.taken.setdefault(ours, theirs)
        if earlier != theirs and earlier in self.entries:
            if theirs in self.entries:
                self.ignore(theirs, f"{earlier} says it")
            return
        self.taken[ours] = theirs
        if ours in self.setting.given:
            self.lines.append(Told(theirs, ours, show_plain(self.setting.given[ours]), "the command line wins"))
            return
        if isinstance(value, str) and _PLACEHOLDER in value:
            self.problems.append(f"{self.where(theirs)} {show(value)}: this is the document's placeholder. Put in your own path.")
        if theirs not in self.entries and " " not in theirs:
            remark = f"{THEIR_DEFAULT}{f'; {remark}' if remark else ''}"
        where = self.entries[theirs].where if theirs == ours and theirs in self.entries else self.where(theirs)
        self.keys[ours] = Given(ours, value, "file", where)
        self.lines.append(Told(theirs, ours, show_plain(value), remark))

    def ignore(self, theirs: str, why: str, value: Any = None) -> None:
        """One of their keys has nothing to do here."""
        self.seen.add(theirs)
        entry = self.entries.get(theirs)
        self.lines.append(Told(theirs, "", show_plain(entry.value if entry and value is None else value), why))

    def refuse(self, theirs: str, why: str, unless: Sequence[str] = ()) -> None:
        """One of their keys asks for what is not here. unless: keys of ours that settle it where the command line gives them."""
        self.seen.add(theirs)
        entry = self.entries.get(theirs)
        settled = [key for key in unless if key in self.setting.given]
        if settled:
            self.ignore(theirs, f"--{settled[0]} takes its place")
            return
        value = f" {show_plain(entry.value)}" if entry else ""
        self.problems.append(f"{self.where(theirs)}{value}: {why}")

    def apply(self, rules: Mapping[str, Rule]) -> None:
        """Read every key that has a rule."""
        for theirs, rule in rules.items():
            if theirs not in self.entries or theirs in self.seen:
                continue
            value = self.get(theirs)
            if isinstance(rule, Where):
                rule = Renamed(rule.key) if self.has(rule.key) else rule.otherwise
            if isinstance(rule, Ignored):
                self.ignore(theirs, rule.why)
            elif value is None:
                continue
            elif isinstance(rule, Renamed):
                self.take(theirs, rule.key, value, rule.remark)
            elif value in rule.allowed and not (isinstance(value, bool) and not any(it is value for it in rule.allowed)):
                self.ignore(theirs, "asks for what is done here anyway")
            else:
                self.refuse(theirs, f"{rule.why}. {rule.fix}")

    def ignore_sections(self, sections: Mapping[str, str]) -> None:
        """Ignore what is left under these prefixes, each for its reason; many keys of a section make one line."""
        for prefix, why in sections.items():
            left = [key for key in self.entries if key not in self.seen and (key == prefix or key.startswith(f"{prefix}."))]
            if len(left) <= _FOLDED:
                for key in left:
                    self.ignore(key, why)
            else:
                self.seen.update(left)
                self.lines.append(Told(f"{prefix}.*", "", f"{len(left)} keys", why))

    def finish(self, hint: str) -> "Reading":
        """Refuse what nobody has read. hint: goes on from "unknown key"."""
        for theirs in self.entries:
            if theirs not in self.seen:
                self.problems.append(f"{self.where(theirs)}: unknown key{hint}")
        return self

    def _replaced(self, theirs: str, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [self._replaced(theirs, item, path) for item in value]
        if not isinstance(value, str):
            return value
        whole = re.fullmatch(r"\$\{([\w.]+)\}", value)
        if whole and whole[1] in self.entries and whole[1] not in path:
            return self._replaced(theirs, self.entries[whole[1]].value, (*path, whole[1]))
        missing: list[str] = []

        def put_in(match: re.Match[str]) -> str:
            name = match["name"] or match["plain"] or match["braced"]
            if name in self.setting.environment:
                return self.setting.environment[name]
            if match["default"] is not None:
                return match["default"][1:].strip().strip("'\"")
            if match["braced"] and name in self.entries and name not in path:
                return str(self._replaced(theirs, self.entries[name].value, (*path, name)))
            missing.append(name)
            return match[0]

        text = _ENVIRONMENT.sub(put_in, value)
        if missing:
            name = missing[0]
            told = f"{name} is not set in the environment. Set it (export {name}=...), or write the value itself."
            if not re.fullmatch(r"\w+", name):
                told = f"${{{name}}} means nothing here: it is no key of this file. Write the value itself."
            problem = f"{self.where(theirs)} {show(value)}: {told}"
            self.problems.extend([problem] if problem not in self.problems else [])
        return os.path.expanduser(text) if text.startswith("~") else text


def show_plain(value: Any) -> str:
    """A value for the table: a text as it is, a list with commas."""
    if isinstance(value, list):
        return ",".join(show_plain(item) for item in value)
    return value if isinstance(value, str) else show(value)


def plain_value(text: str) -> Any:
    """What an unquoted word of YAML or of hydra's command line is: null, a boolean, a number, else a text."""
    words: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[-+]?\d(_?\d)*", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d(_?\d)*\.?(\d(_?\d)*)?|\.\d(_?\d)*)([eE][-+]?\d+)?", text):
        return float(text)
    return text
