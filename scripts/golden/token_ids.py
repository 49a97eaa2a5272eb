"""Make the golden token ids in tests/parity/golden/tokenizers: small tokenizers of three kinds, and the ids that transformers gives.

Run it with an environment that has transformers 5, tokenizers and sentencepiece (they are no dependency of PaddleAlign):

    python scripts/golden/token_ids.py

The tokenizers are trained here on a few lines of text; the version of transformers is written into token_ids.json.
"""

import io
import json
import random
import shutil
from pathlib import Path

import sentencepiece
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = Path(__file__).parents[2] / "tests" / "parity" / "golden" / "tokenizers"

WORDS = (
    "The cook asked for salt and the child asked why . How many apples are there ? There are 3 + 4 = 7 apples , of course ! "
    "Please write a short letter to my aunt in Hangzhou . def add(a, b): return a + b # done <tag> I'm sure it's fine , we'll see "
    "你好 今天 天气 很好 。 请 写 一封 信 ， 谢谢 ！ 三 加 四 等于 七 。 Hello hello Sure , with pleasure : it is 12 o'clock now"
)

CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou answer kindly.<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
INST = (
    "{% if messages[0]['role'] == 'system' %}{% set intro = messages[0]['content'] + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set intro = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message['role'] == 'user' %}"
    "{{ bos_token if loop.first else '' }}{{ '[INST] ' + (intro if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)

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
TEXTS = ["", " ", "Hello", " Hello", "  Hello", "\nHello", "你好 hello", "I'm sure\r\n\tit's  12345.", "🙂🎉", "a\u0000b", "▁Hello ▁"]


def corpus() -> list[str]:
    """Lines of shuffled words, the same in every run."""
    chance = random.Random(7)
    return [" ".join(chance.choices(WORDS.split(" "), k=12)) for _ in range(600)]


def write_json(path: Path, value: object) -> None:
    """Write a small JSON file as people read it."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", "utf-8")


def make_llama(folder: Path) -> None:
    """LLaMA's kind: sentencepiece BPE with byte fallback, and a tokenizer_config.json as transformers 4 writes it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, vocab_size=460, model_type="bpe", byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.999, num_threads=1, minloglevel=2,
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(i): {"content": text, **token} for i, text in enumerate(["<unk>", "<s>", "</s>"])}
    added["460"] = {"content": "<|pad|>", **token}
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": added, "legacy": False,
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": {"__type": "AddedToken", "content": "<s>", **token}, "eos_token": "</s>",
            "unk_token": "<unk>", "pad_token": "<|pad|>", "chat_template": INST,
        },
    )  # fmt: skip
    write_json(folder / "config.json", {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2})


def make_bpe(folder: Path, digits: str, normalizer: object, special: list[str], config: dict, bos: str | None) -> None:
    """Byte-level BPE in tokenizer.json; ``digits`` is how the split pattern takes numbers apart."""
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(special)
    byte_level = processors.ByteLevel(trim_offsets=False)
    if bos is None:
        tokenizer.post_processor = byte_level
    else:
        begin = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        tokenizer.post_processor = processors.Sequence([byte_level, begin])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "config.json", {"model_type": "qwen2" if bos is None else "llama"})
    ends = [tokenizer.token_to_id(text) for text in special if text in ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>")]
    write_json(folder / "generation_config.json", {"eos_token_id": ends})


def golden(folder: Path) -> dict:
    """The ids that transformers gives for every text and conversation."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    conversations = []
    for turns in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in turns]
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(messages, return_dict=False)
        conversations.append({"messages": messages, "prompt_ids": prompt, "ids": whole})
    names = ["text", "ids", "ids_with_bos", "decoded"]
    texts = []
    for text in [*TEXTS, f"{tokenizer.eos_token}Hello {tokenizer.eos_token} hello"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        texts.append(dict(zip(names, [text, ids, tokenizer(text)["input_ids"], decoded], strict=True)))
    return {"class": type(tokenizer).__name__, "conversations": conversations, "texts": texts}


def main() -> None:
    """Make the tokenizers, save each once more as transformers 5 does, and write the ids of all."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    make_llama(FOLDER / "llama")
    qwen = {
        "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
        "errors": "replace", "tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "chat_template": CHATML,
    }  # fmt: skip
    make_bpe(FOLDER / "qwen2", r"\p{N}", normalizers.NFC(), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], qwen, None)
    llama3 = {
        "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": HEADERS,
        "model_input_names": ["input_ids", "attention_mask"],
    }  # fmt: skip
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    make_bpe(FOLDER / "llama3", r"\p{N}{1,3}", None, special, llama3, "<|begin_of_text|>")

    names = ["llama", "qwen2", "llama3"]
    result = {"transformers": transformers.__version__, "tokenizers": {name: golden(FOLDER / name) for name in names}}
    for name in names:
        saved = FOLDER / f"{name}_v5"
        transformers.AutoTokenizer.from_pretrained(FOLDER / name).save_pretrained(saved)
        shutil.copy(FOLDER / name / "config.json", saved)
        result["tokenizers"][saved.name] = golden(saved)
    (FOLDER / "token_ids.json").write_text(json.dumps(result, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
