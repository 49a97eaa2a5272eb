"""The .po file that translators write, and the .mo file that the commands read."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from paddlealign.messages.language import CATALOG
from paddlealign.messages.template import Choice, Place, Template, parse, write
from scripts.messages.extract import skeleton

PO = CATALOG.with_suffix(".po")
_WIDTH = 140
# The dates in the header are always this one, so that the files change with what they say only.
_DATE = datetime(2025, 1, 1, tzinfo=timezone.utc)


def read(path: Path) -> dict[str, str]:
    """Template -> translation, "" where there is none yet."""
    with path.open("rb") as file:
        return {str(message.id): str(message.string) for message in read_po(file) if message.id}


def updated(messages: Mapping[str, Sequence[str]], translations: Mapping[str, str]) -> dict[str, str]:
    """Template -> translation for what the source says now. Where only places have other names, the translation takes these over."""
    by_skeleton = {skeleton(parse(text)): (text, translation) for text, translation in translations.items() if translation}
    done = {}
    for text in messages:
        before, translation = by_skeleton.get(skeleton(parse(text)), ("", ""))
        done[text] = translations.get(text) or (renamed(translation, before, text) if translation else "")
    return done


def renamed(translation: str, before: str, now: str) -> str:
    """A translation with the names of its places as ``now`` has them, where ``before`` has others at the same places."""
    names = dict(zip(_names(parse(before)), _names(parse(now)), strict=True))

    def with_names(template: Template) -> Template:
        return tuple(
            part
            if isinstance(part, str)
            else Place(names[part.name], part.mark)
            if isinstance(part, Place)
            else Choice(names[part.name], tuple(with_names(text) for text in part.texts))
            for part in template
        )

    return write(with_names(parse(translation)))


def _names(template: Template) -> list[str]:
    found = []
    for part in template:
        if not isinstance(part, str):
            found.append(part.name)
        if isinstance(part, Choice):
            found += [name for text in part.texts for name in _names(text)]
    return found


def _catalog(messages: Mapping[str, Sequence[str]], translations: Mapping[str, str]) -> Catalog:
    catalog = Catalog(
        locale="zh_CN",
        header_comment="# Simplified Chinese. Written by python -m scripts.messages; the translations (msgstr) are written by hand.",
        project="PaddleAlign",
        version="0",
        msgid_bugs_address="see README.md",
        last_translator="the contributors",
        language_team="Simplified Chinese",
        creation_date=_DATE,
        revision_date=_DATE,
        fuzzy=False,
    )
    for text, files in messages.items():
        catalog.add(
            text, translations[text], locations=[(name if " " in name else f"paddlealign/{name}", 0) for name in files]
        ).flags.clear()
    return catalog


def po_bytes(messages: Mapping[str, Sequence[str]], translations: Mapping[str, str]) -> bytes:
    """The .po file. messages: template -> the files that say it."""
    file = BytesIO()
    write_po(file, _catalog(messages, translations), width=_WIDTH, include_lineno=False)
    return file.getvalue()


def mo_bytes(messages: Mapping[str, Sequence[str]], translations: Mapping[str, str]) -> bytes:
    """The .mo file."""
    file = BytesIO()
    write_mo(file, _catalog(messages, translations))
    return file.getvalue()
