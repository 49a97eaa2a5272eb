"""What a run shows while it goes on: one bar on a terminal, and for each logged step a line whose columns line up."""

import math
import statistics
import time
from collections.abc import Callable, Mapping

from tqdm import tqdm

from paddlealign.messages.language import translated
from paddlealign.saying import is_said, shows_bars

HEADER_EVERY = 20  # lines
TIMED_STEPS = 6  # by which the time of the run is estimated; the first, which warms up, is left out

# Title, decimals, width, and the names that the run log has for it.
_COLUMNS = (
    ("loss", 4, 8, ("loss",)),
    ("accuracy", 3, 8, ("accuracy", "rewards/accuracies")),
    ("margin", 3, 8, ("margin", "rewards/margins")),
    ("chosen", 3, 8, ("rewards/chosen",)),
    ("rejected", 3, 8, ("rewards/rejected",)),
    ("reward", 3, 8, ("mean_reward",)),
    ("KL", 3, 8, ("kl",)),
    ("lr", -1, 8, ("learning_rate",)),
    ("norm", 3, 8, ("grad_norm",)),
    ("tokens/s", 0, 8, ("tokens_per_second",)),
)


class Progress:
    """A tqdm bar on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, done: int, disable: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """total: optimizer steps of the run; done: steps that were done before this start. disable: lines only. clock: in seconds."""
        self._total, self._done = total, done
        self._tokens_per_second = ""
        self._titles: list[str] = []
        self._since_header = 0
        self._clock = clock
        self._moments: list[float] = []  # when the first steps of this start were done
        self._bar = tqdm(total=total, initial=done, disable=disable or not shows_bars(), unit="step", dynamic_ncols=True, smoothing=0.1)

    def advance(self, means: dict[str, float]) -> None:
        """Count one step and show its loss and, for pairs, its margin. Once, say how long the rest will take."""
        shown = {"loss": f"{means['loss']:.4f}"}
        for name in ("margin", "rewards/margins"):
            if name in means:
                shown["margin"] = f"{means[name]:+.3f}"
        if self._tokens_per_second:
            shown["tokens/s"] = self._tokens_per_second
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()
        self._done += 1
        if len(self._moments) < TIMED_STEPS:
            self._moments.append(self._clock())
            if len(self._moments) == TIMED_STEPS and self._total - self._done >= TIMED_STEPS:
                self._tell_time()

    def _tell_time(self) -> None:
        each = statistics.median(after - before for before, after in zip(self._moments, self._moments[1:], strict=False))
        left = self._total - self._done
        self.say(
            f"time: about {in_words(each * left)} for the {left:,} steps to go, {each:.2g} s a step; evaluations and checkpoints apart"
        )

    def show(self, line: dict[str, float]) -> None:
        """Print one line of the run log: training lines and, marked "eval", evaluation lines; now and then a header over them."""
        prefix = "eval_" if "eval_loss" in line else ""
        if not prefix:
            self._tokens_per_second = f"{line['tokens_per_second']:,.0f}"
        titles = columns_of(line, prefix)
        if not set(titles) <= set(self._titles) or self._since_header == HEADER_EVERY:
            self._titles = [title for title, *_ in _COLUMNS if title in {*titles, *self._titles}]
            self._since_header = 0
            self.say(header(self._titles, self._total))
        self._since_header += 1
        self.say(row(line, prefix, self._titles, self._total))

    def say(self, text: str, warns: bool = False, as_it_stands: bool = False) -> None:
        """Print a line without disturbing the bar, where ``log_level`` lets it; see ``is_said``. as_it_stands: not translated."""
        if is_said(text, warns):
            tqdm.write(text if as_it_stands else translated(text))

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def columns_of(line: Mapping[str, float], prefix: str) -> list[str]:
    """The titles of what a line of the run log has. prefix: "eval_" in front of an evaluation's names."""
    return [title for title, _, _, names in _COLUMNS if any(prefix + name in line for name in names)]


def header(titles: list[str], total: int) -> str:
    """What stands over the rows. total: steps of the run."""
    return "".join(
        [" " * (5 + 2 * len(str(total)) + 1), "  epoch", *(f"  {title:>{width}}" for title, _, width, _ in _COLUMNS if title in titles)]
    )


def row(line: Mapping[str, float], prefix: str, titles: list[str], total: int) -> str:
    """One line of the run log under the titles; what it does not have is left blank. prefix: see ``columns_of``."""
    place = f"{line['step']:>{len(str(total))}}/{total}"
    cells = [f"{'eval' if prefix else 'step'} {place}  {line['epoch']:>5.2f}"]
    for title, decimals, width, names in _COLUMNS:
        if title in titles:
            value = next((line[prefix + name] for name in names if prefix + name in line), None)
            cells.append(" " * width if value is None else cell(value, decimals, width))
    return "  ".join(cells).rstrip()


def cell(value: float, decimals: int, width: int) -> str:
    """A number in so many columns, with fewer decimals where it is large. decimals: below 0 for a power of ten."""
    if decimals < 0 or not math.isfinite(value):
        return f"{value:>{width}.2e}"
    texts = (f"{value:,.{count}f}" for count in range(decimals, -1, -1))
    return next((text for text in texts if len(text) <= width), f"{value:.1e}").rjust(width)


def in_words(seconds: float) -> str:
    """A time as people say it, in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if seconds < 600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
