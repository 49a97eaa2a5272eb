"""The places of a page that a script fills: between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``."""

from pathlib import Path


def split(page: Path, name: str) -> tuple[str, str, str]:
    """What stands before the place, in it, and behind it. Raises RuntimeError where the page has no such place."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text("utf-8")
    if begin not in text or end not in text:
        raise RuntimeError(f"{page}: what is written goes between {begin} and {end}, which are not there")
    before, rest = text.split(begin)
    inside, after = rest.split(end)
    return f"{before}{begin}\n", inside.strip(), f"{end}{after}"


def fill(page: Path, name: str, text: str) -> None:
    """Put the text into the place; the rest of the page stays."""
    before, _, after = split(page, name)
    page.write_text(f"{before}{text}\n{after}", "utf-8")
