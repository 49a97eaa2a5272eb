"""Train the tokenizer: ``python -m scripts.sample.make_tokenizer [--output data/base_model]``.

A SentencePiece BPE model in LLaMA's manner: byte fallback, single digits, no normalisation, unk 0, bos 1, eos 2, no pad.
Newlines are the byte piece <0x0A>, as in LLaMA, so a line never joins the next. Writes tokenizer.model,
tokenizer_config.json (with the chat template) and special_tokens_map.json.
"""

import argparse
import io
import json
import re
from pathlib import Path

import sentencepiece

from scripts.sample.chinese import CHINESE
from scripts.sample.corpus import corpus
from scripts.sample.stories import NAMES, WORDS

# A turn is a line with the speaker, then the text. The turn's text begins a line, so its tokens do not depend on what is before.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ 'System:\\n' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User:\\n' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant:\\n' + message['content'] + eos_token }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)


CUT = "\t"
COMMON = ["的", "是", "哪", "什么", "几", "多少", "怎么", "如果", "今天", "明天", "昨天", "我们", "一共", "用", "有", "来"]


def chinese_words() -> re.Pattern:
    """A pattern for common Chinese words and those of two characters or more that fill slots in sentences, longest first."""
    facts = [fact for topic in CHINESE.topics for fact in topic.facts]
    words = {word for subject, answer in facts for word in (*subject, answer)}
    words |= {*NAMES["zh"], *(word for kind in WORDS["zh"].values() for word in kind), *COMMON}
    long = sorted((word for word in words if (len(word) > 1 or word in COMMON) and not word.isascii()), key=lambda word: (-len(word), word))
    return re.compile("(" + "|".join(long) + ")")


def cut_words(line: str, words: re.Pattern) -> str:
    """The line with cuts around the words, so that no piece joins it with the sentence around it.

    Chinese has no spaces; without the cuts a whole fact such as a day and the next one becomes a single piece.
    """
    return words.sub(CUT + r"\1" + CUT, line)


def special(content: str) -> dict:
    """An added token as transformers writes it."""
    return {
        "__type": "AddedToken", "content": content,
        "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True,
    }  # fmt: skip


def train(lines: list[str], pieces: int, output: Path) -> None:
    """Train a model of at most ``pieces`` pieces on the lines and write tokenizer.model. No path gets into the file."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=pieces,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        pretokenization_delimiter=CUT,
        max_sentencepiece_length=12,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (output / "tokenizer.model").write_bytes(model.getvalue())


def write_configuration(output: Path) -> None:
    """Write tokenizer_config.json and special_tokens_map.json."""
    configuration = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": special("<s>"),
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": special("</s>"),
        "legacy": True,
        "model_max_length": 512,
        "pad_token": None,
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": special("<unk>"),
    }
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for name, content in (("tokenizer_config.json", configuration), ("special_tokens_map.json", names)):
        (output / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Train on a stretch of the corpus and write the tokenizer's files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("data/base_model"), help="folder of the checkpoint")
    parser.add_argument("--pieces", type=int, default=4000, help="size of the vocabulary")
    parser.add_argument("--texts", type=int, default=40000, help="number of texts to train on")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    words = chinese_words()
    written = "\n".join(part for row in corpus(7, arguments.texts) for part in [*row["src"], *row["tgt"]])
    lines = [cut_words(line, words) for line in written.split("\n")]
    lines += ["(User: (Assistant: (System:"] * 1000  # behind a bracket, so that the piece is that of a line's beginning
    train(lines, arguments.pieces, arguments.output)
    write_configuration(arguments.output)
    size = sentencepiece.SentencePieceProcessor(model_file=str(arguments.output / "tokenizer.model")).vocab_size()
    print(f"{arguments.output}: {size} pieces")


if __name__ == "__main__":
    main()
