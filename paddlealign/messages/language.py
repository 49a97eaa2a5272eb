"""The one way by which text reaches people in their language. Files that tools read are not written through it."""

import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from paddlealign.errors import UserError

if TYPE_CHECKING:
    from paddlealign.messages.catalog import Catalog

VARIABLE = "PADDLEALIGN_LANG"
LANGUAGES = ("en", "zh")
CATALOG = Path(__file__).parent / "zh" / "LC_MESSAGES" / "paddlealign.mo"


def translated(text: str, stream: TextIO | None = None) -> str:
    """The text in the user's language, as far as it is translated. stream: where it will be printed, stdout by default."""
    if language(os.environ) == "en" or not _can_show(sys.stdout if stream is None else stream):
        return text
    try:
        return _chinese().translate(text)
    except Exception:  # noqa: BLE001 - whatever is wrong with a translation, the message itself must be seen
        return text


def language(environment: Mapping[str, str]) -> str:
    """``en`` or ``zh``: PADDLEALIGN_LANG, or else the locale's; English where neither is one of them."""
    if environment.get(VARIABLE):
        return _wanted(environment) if _wanted(environment) in LANGUAGES else "en"
    # The order in which POSIX reads them.
    locale = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := environment.get(name))), "")
    return "zh" if locale.lower().startswith("zh") else "en"


def check_language(environment: Mapping[str, str]) -> None:
    """Refuse a language that is not here. Raises UserError."""
    if environment.get(VARIABLE) and _wanted(environment) not in LANGUAGES:
        asked = repr(environment[VARIABLE])
        raise UserError(
            f"{VARIABLE} is {asked} in the environment; allowed: {', '.join(LANGUAGES)}. Unset it to follow the locale. "
            f"/ 环境变量 {VARIABLE} 为 {asked}；可用值：{'、'.join(LANGUAGES)}。不设置它则按区域设置决定。"
        )


def _wanted(environment: Mapping[str, str]) -> str:
    """The language of a value such as zh, zh_CN, zh-CN or en_US.UTF-8."""
    return environment[VARIABLE].lower().replace("-", "_").split(".")[0].split("_")[0]


def _can_show(stream: TextIO) -> bool:
    try:
        "中".encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@cache
def _chinese() -> "Catalog":
    """Read when the first text is shown, and nothing of it where the language is English."""
    from paddlealign.messages.catalog import load

    return load(CATALOG)
