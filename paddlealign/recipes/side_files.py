"""What lies beside a saved model's weights: its tokenizer, chat template and end token."""

import json
from collections.abc import Mapping
from typing import Any

from paddlealign.arguments.model_files import read_json_object
from paddlealign.arguments.results import TrainArguments
from paddlealign.data.template import template_source
from paddlealign.models.config import read_config
from paddlealign.models.weight_files import GENERATION_FILE, files_beside
from paddlealign.recipes.adapter import generation_folder
from paddlealign.recipes.device import say
from paddlealign.recipes.rows import Rows


def side_files(arguments: TrainArguments, rows: Rows) -> dict[str, bytes]:
    """What a saved model has beside its weights: the tokenizer of its rows, the chat template where one was chosen, and the end token."""
    folder = generation_folder(arguments.model, arguments.adapter.lora_path)
    files = files_beside(folder, rows.tokenizer.folder)
    if arguments.data.chat_template not in ("auto", "none"):
        files["chat_template.jinja"] = template_source(arguments.data.chat_template).encode()
    told = read_json_object(folder / GENERATION_FILE) if GENERATION_FILE in files else {}
    named = named_ends(told or read_config(arguments.model.model_name_or_path).source)
    if rows.end_id not in named:
        # Whoever generates from the saved model would run on past every answer.
        files[GENERATION_FILE] = (json.dumps({**told, "eos_token_id": [rows.end_id, *named]}, indent=2) + "\n").encode()
        say(f"note: answers end with token {rows.end_id}, which the model's files do not name; the saved {GENERATION_FILE} does")
    return files


def named_ends(source: Mapping[str, Any]) -> list[int]:
    """The ids under eos_token_id: one, a list of them, or none."""
    value = source.get("eos_token_id")
    return value if isinstance(value, list) else [] if value is None else [value]
