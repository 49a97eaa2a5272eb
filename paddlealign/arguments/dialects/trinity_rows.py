"""Trinity-RFT's experience buffer: which rows are read, what their columns are called, and which texts stand around them."""

from paddlealign.arguments.dialects.data_keys import OUR_ROWS, take_column, take_wish
from paddlealign.arguments.dialects.reading import Reading
from paddlealign.arguments.template_names import template_name

ROWS = "buffer.trainer_input.experience_buffer"
FORMAT = f"{ROWS}.format"


def take_rows(reading: Reading) -> None:
    """Where the rows are, and what is in them. The form of a row is told from the rows themselves."""
    path = reading.get(f"{ROWS}.path")
    if path is None:
        reading.refuse(f"{ROWS}.path", "is not set. Set it to the folder or file of the rows.", unless=OUR_ROWS)
    else:
        reading.take(f"{ROWS}.path", "dataset_name_or_path", path)
    split = reading.get(f"{ROWS}.split", "train")
    if split != "train":
        take_wish(reading, f"{ROWS}.split", "split", split)
    elif f"{ROWS}.split" in reading.entries:
        reading.ignore(f"{ROWS}.split", "the rows that training reads")
    if reading.get(f"{ROWS}.subset_name") is not None:
        take_wish(reading, f"{ROWS}.subset_name", "subset", reading.get(f"{ROWS}.subset_name"))
    kind = reading.get(f"{FORMAT}.prompt_type", "messages")
    parts = {
        ("sft", "plaintext"): ("prompt", "response"),
        ("sft", "chatpair"): ("prompt", "response"),
        ("sft", "messages"): ("messages",),
        ("dpo", "plaintext"): ("prompt", "chosen", "rejected"),
        ("dpo", "chatpair"): ("prompt", "chosen", "rejected"),
        ("dpo", "messages"): ("messages", "chosen", "rejected"),
    }.get(("sft" if reading.command == "sft" else "dpo", str(kind)))
    if parts is None:
        reading.refuse(f"{FORMAT}.prompt_type", "is not known. Allowed: plaintext, messages, chatpair.")
        return
    reading.ignore(f"{FORMAT}.prompt_type", "told from the rows themselves", kind)
    defaults = {"messages": "message"}
    for part in ("prompt", "response", "chosen", "rejected", "messages", "tools"):
        key = f"{FORMAT}.{part}_key"
        if part in parts:
            take_column(reading, key, part, str(reading.get(key, defaults.get(part, part))))
        elif part == "tools" and key in reading.entries:
            take_column(reading, key, part, str(reading.get(key)))
        elif key in reading.entries:
            reading.ignore(key, f"not read with prompt_type {kind}")
    _take_texts(reading, str(kind))


def _take_texts(reading: Reading, kind: str) -> None:
    """System prompts, the template, and which turns are scored."""
    column, text = f"{FORMAT}.system_prompt_key", f"{FORMAT}.system_prompt"
    if reading.get(column) is not None:
        take_column(reading, column, "system", str(reading.get(column)))
    if reading.get(text) is not None:
        take_wish(reading, text, "system_prompt", reading.get(text), unless=())
    for key in (f"{FORMAT}.chat_template", "model.custom_chat_template"):
        template = reading.get(key)
        if template is None:
            continue
        if str(template).endswith(".jinja") or template_name(str(template)):
            reading.take(key, "chat_template", template)
        else:
            reading.refuse(key, "a template as text. Write it to a .jinja file, and set --chat_template to it.", unless=("chat_template",))
    turns = f"{FORMAT}.enable_concatenated_multi_turn"
    if reading.command == "sft" and kind == "messages":
        every = reading.get(turns, False)
        which = "every assistant turn is scored" if every else "the last assistant turn is scored"
        reading.take(turns, "score_turns", "all" if every else "last", which)
    elif turns in reading.entries:
        reading.ignore(turns, "read for SFT on messages only")
