"""Stop strings: texts that end an answer, found as the tokens come, whatever the tokens' borders."""

from collections.abc import Callable, Sequence

from paddlealign.data.tokenizer import Tokenizer

# More characters than the first token of a tail may get wrong: half a character, or a space that a tokenizer drops at the start.
_SLACK = 8


def cut_at_stop(text: str, stop_strings: Sequence[str]) -> str:
    """The text up to the first place where a stop string stands."""
    places = [text.find(stop) for stop in stop_strings]
    return text[: min((place for place in places if place >= 0), default=len(text))]


def special_stop_ids(stop_strings: Sequence[str], tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of the stop strings that are special tokens: these have no text in an answer and end it by their ids."""
    return tuple(tokenizer.special_tokens[stop] for stop in stop_strings if stop in tokenizer.special_tokens)


def stop_finder(stop_strings: Sequence[str], tokenizer: Tokenizer) -> Callable[[Sequence[int]], bool] | None:
    """A function that says whether the text of some tokens holds a stop string at its end, or None where there are none.

    It is to be asked after each token, so that only what the last token brought is looked at: the tokens before it are decoded as far
    back as the longest stop string reaches.
    """
    if not stop_strings:
        return None
    reach = max(map(len, stop_strings)) + _SLACK

    def holds_stop(tokens: Sequence[int]) -> bool:
        count = reach
        while count < len(tokens) and len(tokenizer.decode(tokens[-count:-1])) < reach:
            count *= 2
        text = tokenizer.decode(tokens[-count:])
        return any(stop in text for stop in stop_strings)

    return holds_stop
