"""The chat templates that ``chat_template`` takes by name; they lie in paddlealign/data/templates."""

import difflib
from pathlib import Path

# Which special tokens each writes beside the tokenizer's own BOS and EOS: without them its turns would be plain characters to the model.
TEMPLATE_NAMES: dict[str, tuple[str, ...]] = {
    "qwen": ("<|im_start|>", "<|im_end|>"),
    "qwen3": ("<|im_start|>", "<|im_end|>"),
    "llama2": (),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": (),
    "mistral_v3": ("[INST]", "[/INST]"),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "vicuna": (),
    "plain": (),
}
_OTHER_NAMES = {"qwen25": "qwen", "mistralv3": "mistral_v3"}
ALLOWED = f"auto, none, a name ({', '.join(TEMPLATE_NAMES)}) or the path of a .jinja file"


def template_name(choice: str) -> str | None:
    """The named template that a value of ``chat_template`` means, in any case and with or without - _ and .; None where it means none."""
    plain = choice.lower().translate(str.maketrans("", "", "-_."))
    name = _OTHER_NAMES.get(plain, plain)
    return name if name in TEMPLATE_NAMES else None


def template_problem(choice: str) -> str | None:
    """What is wrong with a value of ``chat_template``, with what may be meant, or None."""
    if choice in ("auto", "none") or template_name(choice):
        return None
    if Path(choice).suffix == ".json":
        return f"chat_template: {choice} is PaddleNLP's own form, which is not read. Give {ALLOWED}."
    if Path(choice).is_file():
        return None
    near = difflib.get_close_matches(choice.lower(), ["auto", "none", *TEMPLATE_NAMES], n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    return f'chat_template: "{choice}" is neither a known name nor a file.{meant} Allowed: {ALLOWED}.'
