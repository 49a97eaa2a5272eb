"""Make the golden tokenizer folders in tests/parity/golden/tokenizers: small tokenizers with each family's real rules.

Run it with an environment that has transformers 4 (4.51 or later), which writes LLaMA's tokenizer.json and tokenizer_config.json as it
does; then scripts/golden/token_ids.py with transformers 5:

    python -m scripts.golden.tokenizer_folders
    python -m scripts.golden.token_ids

The vocabularies are trained here on a few lines of text. Normalisers, pre-tokenizers, post-processors, decoders and the flags of added
tokens are those of the families' checkpoints.
"""

import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = Path(__file__).parents[2] / "tests" / "parity" / "golden" / "tokenizers"
TEMPLATES = Path(__file__).parent / "templates"

WORDS = (
    "The cook asked for salt and the child asked why . How many apples are there ? There are 3 + 4 = 7 apples , of course ! "
    "Please write a short letter to my aunt in Hangzhou . def add(a, b): return a + b # done <tag> I'm sure it's fine , we'll see "
    "你好 今天 天气 很好 。 请 写 一封 信 ， 谢谢 ！ 三 加 四 等于 七 。 Hello hello Sure , with pleasure : it is 12 o'clock now"
)
LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
# Added tokens with every flag that a checkpoint may set.
ODD = [
    AddedToken("<|left|>", lstrip=True, normalized=False, special=True),
    AddedToken("<|right|>", rstrip=True, normalized=False, special=True),
    AddedToken("<|both|>", lstrip=True, rstrip=True, normalized=False, special=False),
    AddedToken("<|word|>", single_word=True, normalized=False, special=False),
    AddedToken("<plain>", normalized=True, special=False),
    AddedToken("Ångström", normalized=True, special=False),
]
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN3_PLAIN = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
MISTRAL_CONTROL = ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]


def corpus() -> list[str]:
    """Lines of shuffled words, the same in every run."""
    chance = random.Random(7)
    return [" ".join(chance.choices(WORDS.split(" "), k=12)) for _ in range(600)]


def write_json(path: Path, value: object) -> None:
    """Write a small JSON file as people read it."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", "utf-8")


def template(name: str) -> str:
    """One of the chat templates in scripts/golden/templates."""
    return (TEMPLATES / f"{name}.jinja").read_text("utf-8").rstrip("\n")


def sentencepiece_model(control: list[str], defined: list[str]) -> bytes:
    """LLaMA's kind of tokenizer.model: BPE with byte fallback, digits apart; with control pieces and user-defined ones behind </s>."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, vocab_size=460, model_type="bpe", byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.999, num_threads=1, minloglevel=2,
        control_symbols=control, user_defined_symbols=defined,
    )  # fmt: skip
    return model.getvalue()


def make_llama(name: str, model: bytes, config: dict[str, Any], model_type: str = "llama", added: list[AddedToken] | None = None) -> None:
    """A folder with tokenizer.model and the JSON files that transformers 4's slow tokenizer writes."""
    folder = FOLDER / name
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(model)
    token = {**FLAGS, "special": True}
    decoder = {str(i): {"content": text, **token} for i, text in enumerate(["<unk>", "<s>", "</s>"])}
    size = 460
    decoder[str(size)] = {"content": "<|pad|>", **token}
    for number, one in enumerate(added or [], size + 1):
        decoder[str(number)] = one.__getstate__()
    settings = {
        "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder, "tokenizer_class": "LlamaTokenizer",
        "bos_token": {"__type": "AddedToken", "content": "<s>", **token}, "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<|pad|>", "chat_template": template("inst"), **config,
    }  # fmt: skip
    write_json(folder / "tokenizer_config.json", {key: value for key, value in settings.items() if value is not ...})
    write_json(folder / "config.json", {"model_type": model_type, "bos_token_id": 1, "eos_token_id": 2})


def convert(
    source: str, name: str, legacy: bool, changes: dict[str, Any], model_type: str = "llama", control: list[str] | None = None
) -> None:
    """A folder with the tokenizer.json that transformers 4 makes of a tokenizer.model; ``changes`` of tokenizer_config.json follow."""
    folder = FOLDER / name
    tokenizer = transformers.LlamaTokenizerFast(vocab_file=str(FOLDER / source / "tokenizer.model"), legacy=legacy, add_prefix_space=True)
    tokenizer.add_special_tokens({"additional_special_tokens": control or []})
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.model").unlink(missing_ok=True)
    (folder / "special_tokens_map.json").unlink()
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text("utf-8")), "tokenizer_class": "LlamaTokenizer", **changes}
    write_json(path, {key: value for key, value in config.items() if value is not ... and key != "add_prefix_space"})
    # In as few bytes as it goes.
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    write_json(folder / "config.json", {"model_type": model_type, "bos_token_id": 1, "eos_token_id": 2})


def make_bpe(
    name: str, pattern: str | None, normalizer: Any, added: list[AddedToken], config: dict[str, Any], model_type: str, *,
    first: list[str] | None = None, bos: str | None = None, ignore_merges: bool = False, stops: tuple[str, ...] = (), size: int = 480,
) -> None:  # fmt: skip
    """A folder with byte-level BPE in tokenizer.json. pattern: None is GPT-2's. first: special tokens before the vocabulary, from id 0."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level]) if split else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, special_tokens=first or [])
    tokenizer.train_from_iterator(corpus(), trainer)
    for token in added:
        tokenizer.add_tokens([token])
    processor = processors.ByteLevel(trim_offsets=pattern is None)
    if bos is not None:
        special = [(bos, tokenizer.token_to_id(bos))]
        begin = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=special)
        processor = processors.Sequence([processor, begin])
    tokenizer.post_processor = processor
    folder = FOLDER / name
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "config.json", {"model_type": model_type})
    if stops:
        write_json(folder / "generation_config.json", {"eos_token_id": [tokenizer.token_to_id(text) for text in stops]})


def special(texts: list[str]) -> list[AddedToken]:
    """Special tokens without odd flags."""
    return [AddedToken(text, normalized=False, special=True) for text in texts]


def described(name: str) -> dict[str, Any]:
    """added_tokens_decoder of a folder's tokenizer.json, as transformers 4 writes it into tokenizer_config.json."""
    tokens = json.loads((FOLDER / name / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    return {str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in tokens}


def make_llama_folders() -> None:
    """LLaMA 2 and Mistral with sentencepiece, in every form that their checkpoints come in."""
    plain, v3 = sentencepiece_model([], []), sentencepiece_model(MISTRAL_CONTROL, [])
    make_llama("llama", plain, {"legacy": False})
    make_llama("llama_legacy", plain, {"legacy": True})
    make_llama("llama_unsaid", plain, {})
    make_llama("llama_no_prefix", plain, {"legacy": False, "add_prefix_space": False})
    pieces = sentencepiece_model(["[INST]", "<|im_end|>"], ["<think>", "<plain>", "  "])
    make_llama("llama_pieces", pieces, {"legacy": False, "added_tokens_decoder": ..., "pad_token": None})
    make_llama("llama_flags", plain, {"legacy": False}, added=ODD)
    chat = {"chat_template": template("inst")}
    convert("llama", "llama_json", True, {**chat, "legacy": False})  # LLaMA 2 as Meta published it
    convert("llama", "llama_json_legacy", True, {**chat, "legacy": True})
    convert("llama", "llama_json_metaspace", False, {**chat, "legacy": False, "added_tokens_decoder": ...})
    make_llama("mistral_model", plain, {"legacy": True, "pad_token": None}, "mistral")
    convert("llama", "mistral", True, {**chat, "legacy": True}, "mistral")
    make_llama("mistral_v3_model", v3, {}, "mistral")
    convert("mistral_v3_model", "mistral_v3", False, {"chat_template": template("mistral_v3"), "legacy": False}, "mistral", MISTRAL_CONTROL)
    shutil.rmtree(FOLDER / "mistral_v3_model")


def make_byte_level_folders() -> None:
    """Qwen 2 and 3, LLaMA 3, Mistral's tekken and Pythia."""
    qwen = {
        "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
        "errors": "replace", "tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    ends = ("<|im_end|>", "<|endoftext|>")
    digit = LETTERS % r"\p{N}"
    make_bpe("qwen2", digit, normalizers.NFC(), special(QWEN_SPECIAL), {**qwen, "chat_template": template("chatml")}, "qwen2", stops=ends)
    odd = special(QWEN_SPECIAL) + ODD
    make_bpe("qwen2_flags", digit, normalizers.NFC(), odd, {**qwen, "chat_template": template("chatml")}, "qwen2", stops=ends)
    qwen3 = special(QWEN_SPECIAL) + [AddedToken(text, normalized=False, special=False) for text in QWEN3_PLAIN]
    make_bpe("qwen3", digit, normalizers.NFC(), qwen3, {**qwen, "chat_template": template("qwen3")}, "qwen3", stops=ends)
    for name in ("qwen2", "qwen2_flags", "qwen3"):
        path = FOLDER / name / "tokenizer_config.json"
        write_json(path, {**json.loads(path.read_text("utf-8")), "added_tokens_decoder": described(name)})
    named = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    llama3 = {
        "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": template("llama31"), "clean_up_tokenization_spaces": True, "model_input_names": ["input_ids", "attention_mask"],
    }  # fmt: skip
    reserved = special([*named, *(f"<|reserved_special_token_{i}|>" for i in range(256 - len(named)))])
    triples = LETTERS % r"\p{N}{1,3}"
    make_bpe("llama3", triples, None, reserved, llama3, "llama", bos=named[0], ignore_merges=True, stops=("<|eot_id|>", "<|end_of_text|>"))
    tekken = {
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": template("mistral_v3"), "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    first = ["<unk>", "<s>", "</s>", *MISTRAL_CONTROL, *(f"<SPECIAL_{i}>" for i in range(10, 20))]
    make_bpe("mistral_tekken", TEKKEN, None, special(first), tekken, "mistral", first=first, bos="<s>", ignore_merges=True, size=500)
    neox = {
        "add_prefix_space": False, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
        "tokenizer_class": "GPTNeoXTokenizer", "chat_template": template("pythia"),
    }  # fmt: skip
    first = ["<|endoftext|>", "<|padding|>"]
    spaces = [AddedToken(" " * count, normalized=True, special=False) for count in range(24, 1, -1)]
    make_bpe("pythia", None, normalizers.NFC(), spaces, neox, "gpt_neox", first=first)


def main() -> None:
    """Make all folders anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    make_llama_folders()
    make_byte_level_folders()


if __name__ == "__main__":
    main()
