"""Write tests/parity/golden/tokenizers/token_ids.json.gz: the ids and texts that transformers 5 gives for the golden tokenizer folders.

Run it with an environment that has transformers 5 (it is no dependency of PaddleAlign), after scripts/golden/tokenizer_folders.py:

    python -m scripts.golden.token_ids

Each folder is saved once more as transformers 5 does (``..._v5``). The file holds the version of transformers, the texts of
scripts/golden/nasty_texts.py and the conversations below, and for each folder: class (what transformers loads), ids of every text
(no special token added), begin (what add_special_tokens puts before every text; it puts nothing behind), decoded and visible (the texts of
those ids without and with special tokens, as {place: text} where they differ from the text), drawn (random ids and their text, much of it
no UTF-8), and the ids of the conversations with and without generation prompt.
"""

import gzip
import json
import random
import shutil

import transformers

from scripts.golden.nasty_texts import nasty_texts
from scripts.golden.tokenizer_folders import FOLDER

CONVERSATIONS = [
    [("user", "How many apples are there?"), ("assistant", "There are 3 + 4 = 7 apples.")],
    [("user", "请写一封信给杭州的阿姨，谢谢！"), ("assistant", "你好，阿姨！今天天气很好。")],
    [("user", "A letter 🙂, please 👩‍👩‍👧"), ("assistant", "🙂 Sure: 你好 🎉")],
    [("user", "  two spaces in front"), ("assistant", " one space in front, two behind  ")],
    [("user", "lines\n\nand\n  indents\n"), ("assistant", "\ndef add(a, b):\n\treturn a + b\n")],
    [("system", "You are a cook."), ("user", "Why?"), ("assistant", "The child asked for salt.")],
    [
        ("system", "简短回答。"),
        ("user", "三加四等于？"),
        ("assistant", "七。"),
        ("user", "And 12 + 7?"),
        ("assistant", "It's 19, of course!"),
        ("user", "Thanks"),
        ("assistant", "With pleasure :)"),
    ],
    [("user", "café naïve Ünïcödé e\u0301 ﬁ ½"), ("assistant", "l’été — “fine”…")],
]


def call(number: int, name: str, arguments: dict) -> dict:
    """A tool call as the rows and the templates have it."""
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(number: int, name: str, content: str) -> dict:
    """What a tool answers."""
    return {"role": "tool", "content": content, "tool_call_id": f"call{number:05d}", "name": name}


def function(name: str, description: str, properties: dict) -> dict:
    """A tool as the rows and the templates have it."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    function("get_weather", 'The weather of a city, such as "Hangzhou" <ü>', {"city": {"type": "string", "description": "城市"}}),
    function("add", "a + b & 'more'", {"a": {"type": "number"}, "b": {"type": "number"}}),
]
ASK = {"role": "user", "content": "How is the weather in 杭州?"}
WEATHER = {"role": "assistant", "content": None, "tool_calls": [call(1, "get_weather", {"city": '杭州 "H" 🙂\n'})]}
SUNNY = result(1, "get_weather", '{"sky": "晴", "degrees": 24}')
FINE = {"role": "assistant", "content": "It is fine: 24 degrees 🙂"}
SUM = {"role": "user", "content": "And 3 + 4?"}
ADD = {"role": "assistant", "content": None, "tool_calls": [call(2, "add", {"a": 3, "b": 4.5})]}
SEVEN = {"role": "assistant", "content": "7, of course!"}
SYSTEM = {"role": "system", "content": "You are a cook."}
THOUGHT = {"role": "assistant", "content": "<think>\nSalt?\n</think>\n\nNo salt."}
THOUGHT_CALL = {"role": "assistant", "content": "<think>\nI need the sky.\n</think>\n\n", "tool_calls": WEATHER["tool_calls"]}
TWO = {"role": "assistant", "content": None, "tool_calls": WEATHER["tool_calls"] + ADD["tool_calls"]}
WITH_TOOLS = [
    {"tools": TOOLS, "messages": [ASK, FINE]},
    {"tools": TOOLS[:1], "messages": [SYSTEM, ASK, WEATHER]},
    {"tools": TOOLS, "messages": [ASK, WEATHER, SUNNY, FINE]},
    {"tools": TOOLS, "messages": [SYSTEM, ASK, WEATHER, SUNNY, FINE, SUM, ADD, result(2, "add", "7.5"), SEVEN]},
    {"tools": TOOLS, "messages": [ASK, WEATHER, SUNNY, FINE, SUM, ADD]},
    {"tools": TOOLS, "messages": [SUM, SEVEN, ASK, WEATHER]},
    {"tools": [], "messages": [ASK, FINE]},
    {"tools": None, "messages": [SYSTEM, SUM, THOUGHT, SUM, THOUGHT]},
]
# LLaMA 3.1's manner has one call a turn, and no text beside it.
WITH_SEVERAL_CALLS = [
    {"tools": TOOLS, "messages": [ASK, TWO, SUNNY, result(2, "add", "7.5"), SEVEN]},
    {"tools": TOOLS, "messages": [ASK, TWO]},
]
WITH_THOUGHTS = [
    {"tools": TOOLS, "messages": [ASK, THOUGHT_CALL, SUNNY, THOUGHT]},
    {"tools": TOOLS, "messages": [ASK, THOUGHT_CALL]},
    {"tools": TOOLS, "messages": [ASK, {**WEATHER, "content": "I look."}, SUNNY, FINE, SUM, THOUGHT]},
]


def conversations_of(name: str) -> list[dict]:
    """The conversations that a folder's chat template can show."""
    plain = [{"tools": None, "messages": [{"role": role, "content": content} for role, content in turns]} for turns in CONVERSATIONS]
    if name.startswith("qwen3"):
        return plain + WITH_TOOLS + WITH_SEVERAL_CALLS + WITH_THOUGHTS
    if name.startswith(("mistral_v3", "mistral_tekken")):
        return plain + WITH_TOOLS + WITH_SEVERAL_CALLS
    return plain + (WITH_TOOLS if name.startswith("llama3") else [])


def golden(name: str, texts: list[str]) -> dict:
    """The ids and texts that transformers gives for a folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER / name)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    around = [tokenizer(text)["input_ids"] for text in texts]
    begin = around[0]  # the first text is empty
    assert all(whole == begin + own for whole, own in zip(around, ids, strict=True)), name
    decoded = {str(i): text for i, own in enumerate(ids) if (text := tokenizer.decode(own, skip_special_tokens=True)) != texts[i]}
    visible = {str(i): text for i, own in enumerate(ids) if (text := tokenizer.decode(own, skip_special_tokens=False)) != texts[i]}
    chance = random.Random(5)
    # Half of them from the first ids, where sentencepiece has its bytes and byte-level BPE its alphabet.
    lists = [[chance.randrange(chance.choice([262, len(tokenizer)])) for _ in range(chance.randint(1, 16))] for _ in range(60)]
    drawn = [{"ids": own, "decoded": tokenizer.decode(own, skip_special_tokens=True)} for own in lists]
    conversations = []
    for case in conversations_of(name) if tokenizer.chat_template else []:
        messages, tools = case["messages"], case["tools"]
        prompt = tokenizer.apply_chat_template(messages[:-1], tools=tools, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(messages, tools=tools, return_dict=False)
        conversations.append({**case, "prompt_ids": prompt, "ids": whole})
    kind = type(tokenizer).__name__
    texts_of = {"ids": ids, "begin": begin, "decoded": decoded, "visible": visible, "drawn": drawn}
    return {"class": kind, **texts_of, "conversations": conversations}


def main() -> None:
    """Save each folder once more as transformers 5 does, and write the ids of all."""
    texts = nasty_texts()
    folders = {}
    for name in sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and not path.name.endswith("_v5")):
        saved = FOLDER / f"{name}_v5"
        shutil.rmtree(saved, ignore_errors=True)
        transformers.AutoTokenizer.from_pretrained(FOLDER / name).save_pretrained(saved)
        for file in ("config.json", "generation_config.json"):
            if (FOLDER / name / file).exists():
                shutil.copy(FOLDER / name / file, saved)
        path = saved / "tokenizer.json"  # as small as it goes
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")), ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
        folders[name] = golden(name, texts)
        folders[saved.name] = golden(saved.name, texts)
    content = json.dumps({"transformers": transformers.__version__, "texts": texts, "folders": folders}, ensure_ascii=False)
    (FOLDER / "token_ids.json.gz").write_bytes(gzip.compress(content.encode(), mtime=0))


if __name__ == "__main__":
    main()
