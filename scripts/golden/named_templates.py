"""Write tests/parity/golden/named_templates.json.gz: what transformers 5 makes of conversations with the templates that have names here.

Run it with an environment that has transformers 5 (it is no dependency of PaddleAlign), after scripts/golden/token_ids.py:

    python -m scripts.golden.named_templates

The file holds the version of transformers, and: named, for each template and golden tokenizer folder the ids of the conversations below
with and without generation prompt; blocks, the same for templates with generation blocks, with transformers' mask of the assistant's
tokens; texts, the ids of texts that hold special tokens, none of them read as one (split_special_tokens); framed, the ids of conversations
that hold a special token, made by a copy of the folder that does not know this token.
"""

import gzip
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import transformers

from scripts.golden.token_ids import TOOLS, WITH_SEVERAL_CALLS, WITH_THOUGHTS, WITH_TOOLS
from scripts.golden.tokenizer_folders import FOLDER, TEMPLATES

NAMED = FOLDER.parents[3] / "paddlealign" / "data" / "templates"
FITTING = {
    "qwen": ["qwen2", "qwen3"],
    "qwen3": ["qwen3"],
    "llama2": ["llama", "llama_json_legacy", "llama_json_metaspace"],
    "llama3": ["llama3"],
    "mistral": ["mistral", "mistral_model"],
    "mistral_v3": ["mistral_v3", "mistral_tekken"],
    "chatml": ["qwen2", "qwen2_flags"],
    "vicuna": ["llama", "llama_legacy", "pythia"],
    "plain": ["llama", "llama3", "pythia"],
}
BLOCKS = {
    "blocks_chatml": ["qwen2", "qwen3"],
    "blocks_inst": ["llama", "llama_legacy", "mistral", "pythia"],
    "blocks_answer_only": ["qwen3"],
}

ASKED = "Could you help me write a function that tells whether a word reads the same both ways?"
CODE = 'Of course:\n\n```python\ndef is_palindrome(word: str) -> bool:\n    """Upper and lower case count as one."""\n    kept = [c for c in word.lower() if c.isalnum()]\n    return kept == kept[::-1]\n```\n\nCall it with `is_palindrome("Level")`.'  # noqa: E501
TURNS = [
    [("user", ASKED), ("assistant", CODE)],
    [("user", "你好，杭州这个周末适合去西湖吗？"), ("assistant", "适合：周六多云，二十二度左右，早上人少一些。记得带水。")],
    [
        ("system", "You answer in one short sentence."),
        ("user", "Why is the sky blue?"),
        ("assistant", "Air scatters blue light more than red."),
        ("user", "And at sunset?"),
        ("assistant", "Then the light's long way leaves mostly red."),
        ("user", "Thanks! 🙂"),
        ("assistant", "With pleasure 🌅"),
    ],
    [("system", "请用中文回答。"), ("user", "3 + 4 = ?"), ("assistant", "等于 7。"), ("user", "再加 5？"), ("assistant", "12。")],
    [("system", ""), ("user", "An empty system text, please."), ("assistant", "Here it is.")],
    [("user", "  Two spaces in front, a line behind\n"), ("assistant", "\n one line and a space in front, two behind  ")],
    [
        ("user", "Is 91 prime?"),
        ("assistant", "<think>\n91 = 7 * 13\n</think>\n\nNo: 7 times 13."),
        ("user", "97?"),
        ("assistant", "<think>\nyes\n</think>\n\nYes."),
    ],
    [("user", "👩‍👩‍👧‍👦 é e\u0301 ﬁ"), ("assistant", "👍🏽\t½ — “done”…")],
]
WITH_TOOLS_OF = {
    "qwen": WITH_TOOLS + WITH_SEVERAL_CALLS + WITH_THOUGHTS,
    "qwen3": WITH_TOOLS + WITH_SEVERAL_CALLS + WITH_THOUGHTS,
    "mistral_v3": [case for case in WITH_TOOLS + WITH_SEVERAL_CALLS if case["tools"] == TOOLS],
}
# Where each folder's copy does not know a token, and the conversation that holds it as text.
UNKNOWN = {
    "llama": "<|pad|>",
    "llama_legacy": "<|pad|>",
    "llama_flags": "<|left|>",
    "llama_flags_v5": "<|right|>",
    "mistral_v3_v5": "[TOOL_CALLS]",
    "mistral_v3": "[TOOL_RESULTS]",
    "mistral_tekken": "[TOOL_RESULTS]",
    "qwen2_flags": "<|right|>",
    "llama3": "<|reserved_special_token_5|>",
}


def as_messages(turns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Turns as the templates read them."""
    return [{"role": role, "content": content} for role, content in turns]


def cases_of(name: str) -> list[dict[str, Any]]:
    """The conversations that a template can show."""
    return [{"tools": None, "messages": as_messages(turns)} for turns in TURNS] + WITH_TOOLS_OF.get(name, [])


def ids_of(tokenizer: Any, case: dict[str, Any], source: str | None) -> dict[str, list[int]]:
    """The prompt before the last message, and the whole conversation."""
    keys = {"tools": case["tools"], "chat_template": source, "return_dict": False}
    prompt = tokenizer.apply_chat_template(case["messages"][:-1], add_generation_prompt=True, **keys)
    return {"prompt_ids": prompt, "ids": tokenizer.apply_chat_template(case["messages"], **keys)}


def named() -> list[dict[str, Any]]:
    """Each template with each folder that it fits."""
    result = []
    for name, folders in FITTING.items():
        source = (NAMED / f"{name}.jinja").read_text("utf-8")
        for folder in folders:
            tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER / folder)
            cases = [ids_of(tokenizer, case, source) for case in cases_of(name)]
            result.append({"template": name, "folder": folder, "cases": cases})
    return result


def blocks() -> list[dict[str, Any]]:
    """Templates with generation blocks, and which tokens transformers takes for the assistant's."""
    result = []
    for name, folders in BLOCKS.items():
        source = (TEMPLATES / f"{name}.jinja").read_text("utf-8")
        for folder in folders:
            tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER / folder)
            keys = {"chat_template": source, "return_dict": True, "return_assistant_tokens_mask": True}
            # Where a block ends with a character of several tokens, transformers scores the first of them only; here all are scored.
            shown = [turns for turns in TURNS if name != "blocks_answer_only" or all(text[-1:].isascii() for _, text in turns)]
            found = [tokenizer.apply_chat_template(as_messages(turns), **keys) for turns in shown]
            cases = [
                {"messages": as_messages(turns), "ids": one["input_ids"], "mask": one["assistant_masks"]}
                for turns, one in zip(shown, found, strict=True)
            ]
            result.append({"template": name, "folder": folder, "source": source, "cases": cases})
    return result


def texts() -> dict[str, Any]:
    """Texts that hold special tokens, each folder's own and others', with none of them read as one."""
    result = {}
    for folder in sorted({folder for folders in FITTING.values() for folder in folders}):
        tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER / folder)
        tokens = [*dict.fromkeys([*tokenizer.all_special_tokens, "</s>", "<|im_end|>", "[INST]"])][:12]
        forms = ["{}", "a{}b", " {} ", "x {}{} y", "你{}好", "{}\n{}", "<{}>"]
        own = [form.replace("{}", token) for token in tokens for form in forms]
        ids = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in own]
        result[folder] = {"texts": own, "ids": ids}
    return result


def without(folder: str, token: str, place: str) -> Any:
    """The tokenizer of a folder's copy that does not know a token."""
    copy = Path(place) / folder
    shutil.copytree(FOLDER / folder, copy)
    for file in ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"):
        path = copy / file
        if path.is_file():
            path.write_text(json.dumps(forget(json.loads(path.read_text("utf-8")), token)), "utf-8")
    return transformers.AutoTokenizer.from_pretrained(copy)


def forget(config: dict[str, Any], token: str) -> dict[str, Any]:
    """A tokenizer's JSON without an added token."""
    content = {
        key: value for key, value in config.items() if value != token and not (isinstance(value, dict) and value.get("content") == token)
    }
    if "added_tokens" in content:
        content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] != token]
    if "added_tokens_decoder" in content:
        content["added_tokens_decoder"] = {k: one for k, one in content["added_tokens_decoder"].items() if one["content"] != token}
    for key in ("additional_special_tokens", "extra_special_tokens"):
        if isinstance(content.get(key), list):
            content[key] = [one for one in content[key] if one != token]
    return content


def framed() -> list[dict[str, Any]]:
    """Conversations that hold a special token's text, in the frames of the folder's own template."""
    result = []
    for folder, token in UNKNOWN.items():
        with tempfile.TemporaryDirectory() as place:
            tokenizer = without(folder, token, place)
            assert token not in tokenizer.get_added_vocab(), (folder, token)
            contents = [f"What does {token} mean?", f"{token}{token} is a token. 它是 {token}", f" And{token}?", f"{token}"]
            turns = as_messages(list(zip(("user", "assistant") * 2, contents, strict=True)))
            result.append(
                {"folder": folder, "token": token, "messages": turns, **ids_of(tokenizer, {"tools": None, "messages": turns}, None)}
            )
    return result


def main() -> None:
    """Write all of it."""
    conversations = {name: cases_of(name) for name in FITTING}
    content = {"transformers": transformers.__version__, "conversations": conversations}
    content |= {"named": named(), "blocks": blocks(), "texts": texts(), "framed": framed()}
    path = FOLDER.parent / "named_templates.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content, ensure_ascii=False).encode(), mtime=0))


if __name__ == "__main__":
    main()
