"""The pages hold together: links lead somewhere, the index names all pages, both READMEs say the same, quoted messages are the code's."""

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from scripts.files_page import main as files_page
from scripts.files_page import tables as file_tables
from tests.pages import ROOT, anchors, commands, links, pages, tables, tokens_of
from tests.unit.test_layers import LEVELS

DOCS = ROOT / "docs"
CODE = re.compile(r"`[^`]+`")


def broken_links(path: Path) -> list[str]:
    """The page's relative links that lead nowhere."""
    found = []
    for line, target in links(path):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        if not there.exists():
            found.append(f"{path}:{line}: {target}: there is no such file")
        elif anchor and anchor not in anchors(there):
            found.append(f"{path}:{line}: {target}: there is no such heading")
    return found


def test_every_relative_link_and_anchor_leads_somewhere():
    found = [told for path in pages() for told in broken_links(path)]
    assert not found, "\n" + "\n".join(found)


def test_a_broken_link_is_told(tmp_path: Path):
    (tmp_path / "a.md").write_text("# One, `two`\n[a](#one-two) [b](#three)\n\n[c](b.md) ![d](no.png)\n\n    [code](no.md)\n")
    (tmp_path / "b.md").write_text("[a](a.md#one-two) [b](https://example.org/no)\n")
    told = broken_links(tmp_path / "a.md") + broken_links(tmp_path / "b.md")
    assert [re.sub(r"^.*a\.md:", "", line) for line in told] == [
        "2: #three: there is no such heading",
        "4: no.png: there is no such file",
    ]


def test_the_index_names_every_page():
    named = {target for _, target in links(DOCS / "README.md")}
    missing = {path.name for path in DOCS.glob("*.md")} - named - {"README.md"}
    assert not missing, f"docs/README.md does not name {sorted(missing)}"
    assert all(len(row) == 3 and re.search("[一-鿿]", row[1]) for table in tables(DOCS / "README.md") for row in table)


def shape(path: Path) -> list[str]:
    """What must be alike in both languages: headings' levels, lists, pictures, code blocks, and where they stand."""
    wanted = ("heading_open", "bullet_list_open", "list_item_open", "code_block", "fence", "table_open")
    return [token.tag or token.type for token in tokens_of(path) if token.type in wanted]


def test_both_readmes_have_the_same_content():
    english, chinese = ROOT / "README.md", ROOT / "README.zh.md"
    assert [it.words for it in commands(english)] == [it.words for it in commands(chinese)]
    assert shape(english) == shape(chinese)
    ours, theirs = tables(english), tables(chinese)
    assert [[len(row) for row in table] for table in ours] == [[len(row) for row in table] for table in theirs]
    for left, right in zip(ours, theirs, strict=True):
        for row, other in zip(left, right, strict=True):
            assert sorted(CODE.findall(" ".join(row))) == sorted(CODE.findall(" ".join(other)))
            assert re.findall(r"\d[\d.]*", " ".join(row)) == re.findall(r"\d[\d.]*", " ".join(other))
    swapped = {"README.md": "README.zh.md", "README.zh.md": "README.md"}
    assert {target for _, target in links(english)} == {swapped.get(target, target) for _, target in links(chinese)}


def test_the_readmes_are_short():
    for name in ("README.md", "README.zh.md"):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 150


def messages_in(package: Path) -> str:
    """Every text in the code; what is put into one stands as {}, and pieces that are joined stand together."""
    found = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
    return "\n".join(found)


def quoted_messages(path: Path) -> list[str]:
    """What the tables of the troubleshooting page quote in their first column."""
    return [text.strip("`") for table in tables(path) for row in table[1:] for text in CODE.findall(row[0])]


def test_every_quoted_message_stands_in_the_code():
    quoted, messages = quoted_messages(DOCS / "troubleshooting.md"), messages_in(ROOT / "paddlealign")
    assert len(quoted) >= 40
    missing = [text for text in quoted if text not in messages]
    assert not missing, "\n" + "\n".join(missing)


def test_a_message_that_is_no_longer_there_is_told():
    messages = messages_in(ROOT / "paddlealign")
    assert "already holds a run." in messages and "already holds a walk." not in messages


def test_the_file_map_is_what_the_files_say(capsys: pytest.CaptureFixture):
    assert files_page(DOCS / "files.md", check=True) == 0, capsys.readouterr().out


def test_a_file_that_the_map_lacks_is_told(tmp_path: Path, capsys: pytest.CaptureFixture):
    page = (DOCS / "files.md").read_text(encoding="utf-8")
    (tmp_path / "files.md").write_text(page.replace("| `loop.py` |", "| `loops.py` |"), encoding="utf-8")
    assert files_page(tmp_path / "files.md", check=True) == 1 and "is not what the files say" in capsys.readouterr().out
    (tmp_path / "paddlealign" / "helpers").mkdir(parents=True)
    (tmp_path / "paddlealign" / "helpers" / "a.py").touch()
    with pytest.raises(AssertionError, match="helpers"):
        file_tables(tmp_path / "paddlealign")


def test_the_drawing_has_the_layers_of_the_code():
    drawing = ElementTree.parse(DOCS / "images" / "architecture.svg")
    space = "{http://www.w3.org/2000/svg}"
    groups = [group for group in drawing.iter(f"{space}g") if "data-level" in group.attrib]
    levels = {
        int(group.attrib["data-level"]): {text.text for text in group.iter(f"{space}text") if text.get("class") == "folder"}
        for group in groups
    }
    assert [levels[number] for number in sorted(levels)] == LEVELS
    places = {int(group.attrib["data-level"]): float(group[0].attrib["y"]) for group in groups}
    assert sorted(places, key=lambda level: -places[level]) == sorted(places)  # the lowest layer stands lowest
    files = [
        name for text in drawing.iter(f"{space}text") if text.get("class") == "where" for name in re.findall(r"[\w/]+\.py", text.text or "")
    ]
    assert len(files) >= 6 and all((ROOT / "paddlealign" / name).is_file() for name in files)
