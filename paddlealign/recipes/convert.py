"""Conversion: another tool's configuration shown as our keys, and written as an argument file."""

import json
import sys
from collections.abc import Sequence

from paddlealign.arguments.dialects.conversion import USAGE, convert
from paddlealign.errors import UserError
from paddlealign.recipes.entry import while_read
from paddlealign.recipes.told_table import told_table


def main(argv: Sequence[str] | None = None) -> int:
    """Show what each key becomes; write the file that -o names. The exit code: 0, 1 after a user's error, 141 where nobody reads on."""
    return while_read(lambda: _run(sys.argv[1:] if argv is None else list(argv)))


def _run(words: Sequence[str]) -> int:
    if words and words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        found = convert(words)
        if found.output and found.output.exists():
            raise UserError(f"-o: {found.output} exists already. Name another file, or remove it.")
        print(f"{found.source}, for {found.command}\n{told_table(found.told)}")
        for note in found.notes:
            print(f"note: {note}")
        text = json.dumps(found.keys, indent=2, ensure_ascii=False) + "\n"
        if found.output is None:
            print(f"nothing is written without -o FILE; it would be\n{text}", end="")
        else:
            found.output.parent.mkdir(parents=True, exist_ok=True)
            found.output.write_text(text, encoding="utf-8")
            print(f"written: {found.output}")
        print(f"start: {found.launch}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0
