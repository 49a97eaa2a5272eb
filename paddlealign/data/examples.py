"""Many examples as a few flat arrays: in memory, or mapped from a store's files, which are then read where they are looked at.

All that is asked of a whole data set (lengths, the highest id, equal prompts) is answered by NumPy over the arrays; an example is made
when it is asked for, and shares their memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from paddlealign.data.example import Example, Response

# Where a prompt or a response lies among the tokens.
SEGMENT = np.dtype([("start", "<i8"), ("length", "<i4")])


@dataclass(frozen=True, eq=False)
class Examples(Sequence[Example]):
    """Examples in their order.

    tokens: int32 [tokens]. scored: bool [tokens]; false for those of a prompt. segments: SEGMENT [segments]; of each example its prompt,
    then its responses. first: int64 [examples + 1]; the segment with which each example begins, and the end of the last.
    margins: float64 [examples].
    """

    tokens: np.ndarray
    scored: np.ndarray
    segments: np.ndarray
    first: np.ndarray
    margins: np.ndarray

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.first) - 1

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        """One example, a view of the arrays; or a list of them. Raises IndexError beyond the last."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        places = self.segments[self.first[number] : self.first[number + 1]].tolist()
        prompt, *responses = [slice(start, start + length) for start, length in places]
        made = tuple(Response(self.tokens[part], self.scored[part]) for part in responses)
        return Example(self.tokens[prompt], made, float(self.margins[number]))

    def __iter__(self) -> Iterator[Example]:
        """One example after another."""
        return (self[number] for number in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens that each example takes in a row, int64 [examples]: the prompt once and every response."""
        return np.add.reduceat(self.segments["length"], self.first[:-1], dtype=np.int64) if len(self) else np.zeros(0, np.int64)

    @property
    def prompt_lengths(self) -> np.ndarray:
        """Tokens of each prompt, int64 [examples]."""
        return self.segments["length"][self.first[:-1]].astype(np.int64)

    @property
    def response_counts(self) -> np.ndarray:
        """Responses of each example, int64 [examples]."""
        return np.diff(self.first) - 1

    @property
    def text_lengths(self) -> np.ndarray:
        """Tokens of each prompt with its longest response, int64 [examples]."""
        if not len(self):
            return np.zeros(0, np.int64)
        lengths = self.segments["length"].astype(np.int64)
        prompts = lengths[self.first[:-1]]
        lengths[self.first[:-1]] = 0
        return prompts + np.maximum.reduceat(lengths, self.first[:-1])

    @staticmethod
    def of(examples: Sequence[Example]) -> "Examples":
        """Examples that lie in memory one by one, brought together."""
        parts = [(it.prompt_ids, *(response.token_ids for response in it.responses)) for it in examples]
        arrays = [part for of_one in parts for part in of_one]
        scored = [
            part
            for it in examples
            for part in (np.zeros(len(it.prompt_ids), bool), *(np.asarray(response.scored, bool) for response in it.responses))
        ]
        tokens = np.concatenate(arrays).astype(np.int32) if arrays else np.zeros(0, np.int32)
        marks = np.concatenate(scored) if scored else np.zeros(0, bool)
        first = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        margins = np.array([it.margin for it in examples], np.float64)
        return Examples(tokens, marks, lay_out([len(part) for part in arrays]), first, margins)


def lay_out(lengths: Sequence[int] | np.ndarray, start: int = 0) -> np.ndarray:
    """Segments of these lengths one behind the other: SEGMENT [segments]. start: of the first."""
    found = np.zeros(len(lengths), SEGMENT)
    found["length"] = lengths
    found["start"] = start + np.cumsum(found["length"], dtype=np.int64) - found["length"]
    return found
