"""The text of an answer while it is generated: in pieces that are certain, never half a character, and together the decoded whole.

Each token is looked at once. What may still change waits: the bytes of a character that is not whole yet, and under byte fallback
(LLaMA 2, Mistral) a run of byte tokens, since one bad byte makes the decoder show every byte of its run as U+FFFD.
"""

import codecs
import re
from collections.abc import Iterable, Iterator

from paddlealign.data.tokenizer import Tokenizer

_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"


def growing_text(tokens: Iterable[int], tokenizer: Tokenizer, stop_ids: tuple[int, ...]) -> Iterator[str]:
    """The text of ids up to the first of ``stop_ids``, in pieces, as soon as each is certain; none is empty.

    Joined they are ``tokenizer.decode`` of those ids, special tokens left out. Where the decoder is of another kind than the two that
    LLaMA's families have, the text comes at the end, in one piece.
    """
    kind = tokenizer.model.decoder
    if kind == "other":
        ids = list(_until(tokens, stop_ids))
        pieces = iter([tokenizer.decode(ids)])
    else:
        texts = _texts(_until(tokens, stop_ids), tokenizer)
        pieces = _byte_level(texts) if kind == "bytes" else _fallback(texts, kind == "spaced")
    return (piece for piece in pieces if piece)


def _until(tokens: Iterable[int], stop_ids: tuple[int, ...]) -> Iterator[int]:
    for token in tokens:
        if token in stop_ids:
            return
        yield int(token)


def _texts(tokens: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """The vocabulary's texts of ids, without special tokens and ids that it does not hold, as the decoder leaves them out."""
    hidden = set(tokenizer.special_tokens.values())
    for token in tokens:
        text = None if token in hidden else tokenizer.model.id_to_token(token)
        if text is not None:
            yield text


def _byte_level(texts: Iterable[str]) -> Iterator[str]:
    """Every character of a piece stands for a byte; an added token that holds other characters stands for itself."""
    byte_of = {character: byte for byte, character in enumerate(_alphabet())}
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for text in texts:
        known = all(character in byte_of for character in text)
        yield decoder.decode(bytes(byte_of[character] for character in text) if known else text.encode())
    yield decoder.decode(b"", final=True)


def _alphabet() -> list[str]:
    """The characters that stand for the bytes 0 to 255 in byte-level BPE: themselves where they can be seen, else those from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in seen else chr(next(others)) for byte in range(256)]


def _fallback(texts: Iterable[str], spaced: bool) -> Iterator[str]:
    """Pieces with U+2581 for a space, and byte tokens. spaced: the space in front of the whole text goes."""
    run = b""  # bytes that are not shown yet
    broken = False  # a bad byte has stood in this run: each of its bytes is shown as U+FFFD
    check = codecs.getincrementaldecoder("utf-8")()
    for text in texts:
        byte = _BYTE.fullmatch(text)
        shown = ""
        if byte:
            run += bytes.fromhex(byte[1])
            broken = broken or _is_bad(check, run[-1:])
            if broken:
                shown, run = "\ufffd" * len(run), b""
        else:
            shown, run, broken = _end_of_run(run) + text.replace(_SPACE, " "), b"", False
            check.reset()
        if spaced and shown:
            shown, spaced = shown.removeprefix(" "), False
        yield shown
    rest = _end_of_run(run)
    yield rest.removeprefix(" ") if spaced else rest


def _is_bad(check: codecs.IncrementalDecoder, byte: bytes) -> bool:
    """Whether no further byte can make UTF-8 of what ``check`` has seen and this one."""
    try:
        check.decode(byte)
    except UnicodeDecodeError:
        return True
    return False


def _end_of_run(run: bytes) -> str:
    """The text of a whole run: as the decoder has it, one U+FFFD for each byte where they are no UTF-8 together."""
    try:
        return run.decode("utf-8")
    except UnicodeDecodeError:
        return "\ufffd" * len(run)
