"""Conversion: another tool's configuration shown as our keys, and written as an argument file."""

import json
import os
import sys
from collections.abc import Sequence

from paddlealign.arguments.dialects.conversion import USAGE, convert
from paddlealign.errors import UserError
from paddlealign.messages.language import check_language, translated
from paddlealign.recipes.entry import while_read
from paddlealign.recipes.told_table import told_table


def main(argv: Sequence[str] | None = None) -> int:
    """Show what each key becomes; write the file that -o names. The exit code: 0, 1 after a user's error, 141 where nobody reads on."""
    return while_read(lambda: _run(sys.argv[1:] if argv is None else list(argv)))


def _run(words: Sequence[str]) -> int:
    if words and words[0] in ("-h", "--help"):
        print(translated(USAGE))
        return 0
    try:
        check_language(os.environ)
        found = convert(words)
        if found.output and found.output.exists():
            raise UserError(f"-o: {found.output} exists already. Name another file, or remove it.")
        print(f"{translated(f'{found.source}, for {found.command}')}\n{told_table(found.told)}")
        for note in found.notes:
            print(translated(f"note: {note}"))
        text = json.dumps(found.keys, indent=2, ensure_ascii=False) + "\n"
        if found.output is None:
            print(f"{translated('nothing is written without -o FILE; it would be')}\n{text}", end="")
        else:
            found.output.parent.mkdir(parents=True, exist_ok=True)
            found.output.write_text(text, encoding="utf-8")
            print(translated(f"written: {found.output}"))
        print(translated(f"start: {found.launch}"))
    except UserError as error:
        print(translated(f"error: {error}", sys.stderr), file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print(translated(f"error: {error.filename}: {error.strerror}.", sys.stderr), file=sys.stderr)
        return 1
    return 0
