"""The token that a saved reward model's batches are padded with: one that ends no answer, in config.json and in the tokenizer's files."""

import json
from collections.abc import Collection, Mapping

from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.recipes.device import say


def choose_pad_token(tokenizer: Tokenizer, ends: Collection[int], stored_id: int | None, vocab_size: int) -> tuple[str, int]:
    """A token of the model's vocabulary to pad with that ends no answer, as text and id. Raises UserError where there is none.

    transformers reads the score at the last token that is not padding. Where the end token pads, as many tokenizers have it, it would read
    one token before the end, where no score was trained. ends: the tokens that end an answer. stored_id: the token that config.json names.
    It comes first, then those that the tokenizer names, then any special token.
    """
    special = {index: text for text, index in tokenizer.special_tokens.items()}
    named = [tokenizer.named_tokens.get(key) for key in ("pad_token", "unk_token", "bos_token")]
    for text in (special.get(-1 if stored_id is None else stored_id), *named, *special.values()):
        index = None if text is None else tokenizer.model.token_to_id(text)
        if text is not None and index is not None and index not in ends and index < vocab_size:
            return text, index
    raise UserError(
        f"{tokenizer.folder}: the only special token is the one that ends answers, so nothing could pad a batch of the saved reward model. "
        "Add a pad_token to the tokenizer (and set resize_vocab where the model has no row for it)."
    )


def with_pad_token(files: Mapping[str, bytes], tokenizer: Tokenizer, pad_token: str) -> dict[str, bytes]:
    """A tokenizer's files that name the pad token which the saved config.json means."""
    before = tokenizer.named_tokens.get("pad_token")
    if before == pad_token:
        return dict(files)
    say(f"note: the saved tokenizer pads with {pad_token}{f' in place of {before}' if before else ''}, a token that ends no answer")
    changed = {"tokenizer_config.json": files.get("tokenizer_config.json", b"{}")}
    changed |= {name: content for name, content in files.items() if name == "special_tokens_map.json"}
    return {**files, **{name: _with_key(content, "pad_token", pad_token) for name, content in changed.items()}}


def _with_key(content: bytes, key: str, value: str) -> bytes:
    """A JSON object's text with a key set."""
    return (json.dumps({**json.loads(content), key: value}, indent=2, ensure_ascii=False) + "\n").encode()
