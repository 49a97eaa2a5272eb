"""What stands in the project's Markdown pages, as they are shown: headings, links, tables, commands, and files to save."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
_PARSER = MarkdownIt("commonmark").enable("table")


class Command(NamedTuple):
    """A command of a page. remark: what stands behind its #. line: where its block begins."""

    words: str
    remark: str
    line: int


def pages() -> list[Path]:
    """Every Markdown file that git holds or would add."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout.split("\0")
    return sorted(ROOT / name for name in set(names) if name and (ROOT / name).is_file())


@cache
def tokens_of(path: Path) -> list[Token]:
    """The page's tokens."""
    return _PARSER.parse(path.read_text(encoding="utf-8"))


def text_of(inline: Token) -> str:
    """The text of a token, without its marks."""
    return "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of the page's headings."""
    tokens, found = tokens_of(path), dict[str, int]()
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            slug = re.sub(r"[^\w\- ]", "", text_of(inline).lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{count}" if count else slug for slug, last in found.items() for count in range(last + 1)}


def links(path: Path) -> Iterator[tuple[int, str]]:
    """The page's links and images: line and target."""
    for token in tokens_of(path):
        for child in token.children or ():
            target = child.attrGet({"link_open": "href", "image": "src"}.get(child.type, ""))
            if target is not None:
                yield (token.map or [0])[0] + 1, str(target)


def tables(path: Path) -> list[list[list[str]]]:
    """The page's tables: rows of cells, as they are written."""
    found: list[list[list[str]]] = []
    for token, following in pairwise(tokens_of(path)):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(following.content)
    return found


def commands(path: Path) -> list[Command]:
    """The commands in the page's code blocks: indented ones, and fences of bash."""
    found = []
    for token in tokens_of(path):
        if token.type == "code_block" or (token.type == "fence" and token.info.strip() == "bash"):
            for line in token.content.splitlines():
                words, _, remark = line.partition(" # ")
                if re.match(r"(python|bash|source|tail|huggingface-cli|vllm|visualdl) ", words):
                    found.append(Command(words.strip(), remark.strip(), (token.map or [0])[0] + 1))
    return found


def saved_files(path: Path) -> dict[str, str]:
    """The files that the page asks to save: fences whose info is a language and a name."""
    fences = [token for token in tokens_of(path) if token.type == "fence"]
    return {name: token.content for token in fences for name in token.info.split()[1:]}
