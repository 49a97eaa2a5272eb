"""``python -m scripts.messages``: bring the .po file in step with the source, keep its translations, and compile it to the .mo file.

A text that is new in the source stands in the .po file without a translation: write its msgstr, and run this once more.
"""

import sys

from paddlealign.messages.language import CATALOG
from scripts.messages.catalog_file import PO, mo_bytes, po_bytes, read, updated
from scripts.messages.extract import messages


def main() -> int:
    """Write both files and list what is not translated. The exit code is 1 where there is something."""
    found = messages()
    before = read(PO)
    translations = updated(found, before)
    PO.write_bytes(po_bytes(found, translations))
    CATALOG.write_bytes(mo_bytes(found, translations))
    missing = [text for text, translation in translations.items() if not translation]
    print(f"{len(found)} messages, {len(missing)} without a translation; {len(before.keys() - found.keys())} old ones were taken out")
    for text in missing:
        print(f"  {found[text][0]}: {text!r}")
    print(f"written: {PO}\nwritten: {CATALOG}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
