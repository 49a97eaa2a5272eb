"""PaddleNLP's PdArgumentParser without the 4 to 12 seconds that importing PaddleNLP takes: only its one file is loaded."""

import argparse
import functools
import importlib.machinery
import importlib.util
import logging
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from paddlealign.arguments.fields import MAIN_SCRIPTS, SECTIONS
from paddlealign.errors import UserError

PADDLENLP_VERSION = "3.0.0b4"
_PACKAGE = "_paddlealign_parser_of_paddlenlp"
_MEND = f"Install the pinned version: python -m pip install paddlenlp=={PADDLENLP_VERSION}"


@functools.cache
def load_parser_class() -> type:
    """The class PdArgumentParser. Raises UserError where PaddleNLP, or this file of it, is not installed.

    The file imports ``..utils.log`` and omegaconf. It is executed in a private package, whose utils.log is a plain logger, and the
    private names leave sys.modules afterwards: a later ``import paddlenlp`` is not affected.
    """
    found = importlib.util.find_spec("paddlenlp")
    folders = list(found.submodule_search_locations or []) if found else []
    if not folders:
        raise UserError(f"PaddleNLP is not installed; its argument parser is needed. {_MEND}")
    path = Path(folders[0]) / "trainer" / "argparser.py"
    if not path.is_file():
        raise UserError(f"The installed PaddleNLP has no {path.name} in {path.parent}. {_MEND}")
    logger_module = types.ModuleType(f"{_PACKAGE}.utils.log")
    logger_module.logger = logging.getLogger("paddlealign.arguments")  # type: ignore[attr-defined]
    private = {name: types.ModuleType(name) for name in (_PACKAGE, f"{_PACKAGE}.utils", f"{_PACKAGE}.trainer")}
    for package in private.values():
        package.__path__ = []
    private[logger_module.__name__] = logger_module
    loader = importlib.machinery.SourceFileLoader(f"{_PACKAGE}.trainer.argparser", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    if spec is None:
        raise UserError(f"{path} cannot be loaded. {_MEND}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.update(private)
    try:
        loader.exec_module(module)
    except ImportError as error:
        raise UserError(f"PaddleNLP's argument parser cannot be loaded: {error}. {_MEND}") from None
    finally:
        for name in private:
            sys.modules.pop(name, None)
    return module.PdArgumentParser


def build_parser(command: str) -> Any:
    """A PdArgumentParser over the command's dataclasses. What it finds wrong is a UserError, not an exit."""
    script = MAIN_SCRIPTS[command]
    parser = load_parser_class()(
        tuple(SECTIONS[command].values()),
        prog=script,
        usage=f"{script} [ARGS.json] [--key value ...]",
        description="Keys stand in the JSON file, on the command line, or both; the command line wins. See docs/arguments.md.",
        formatter_class=_layout,
        allow_abbrev=False,
    )
    parser.error = _refuse
    return parser


def parse_sections(command: str, values: dict[str, Any]) -> list[Any]:
    """The command's dataclasses, filled from values that already have the right types; None values are left out."""
    words: list[str] = []
    for key, value in values.items():
        if isinstance(value, list):
            words += [f"--{key}", *value]
        elif value is not None:
            words.append(f"--{key}={str(value).lower() if isinstance(value, bool) else value}")
    return list(build_parser(command).parse_args_into_dataclasses(words, look_for_args_file=False))


def _layout(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=40, width=120)


def _refuse(message: str) -> NoReturn:
    raise UserError(message)


def format_help(command: str, argv: Sequence[str]) -> str | None:
    """The text of ``--help`` where it is asked for, else None."""
    if not any(word in ("-h", "--help") for word in argv):
        return None
    text: str = build_parser(command).format_help()
    return text
