"""What a run shows on the terminal: one bar, and a line that lines up for each logged step."""

import sys

from tqdm import tqdm

_SHOWN = {
    "loss": ("loss", "{:.4f}"),
    "accuracy": ("accuracy", "{:.3f}"),
    "margin": ("margin", "{:+.3f}"),
    "mean_reward": ("reward", "{:+.3f}"),
    "rewards/margins": ("margin", "{:+.3f}"),
    "rewards/accuracies": ("accuracy", "{:.3f}"),
    "learning_rate": ("lr", "{:.2e}"),
    "grad_norm": ("norm", "{:.3f}"),
    "tokens_per_second": ("tokens/s", "{:,.0f}"),
}


class Progress:
    """A tqdm bar on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, done: int, disable: bool) -> None:
        """total: optimizer steps of the run; done: steps that were done before this start. disable: lines only."""
        hidden = disable or not sys.stderr.isatty()
        self._total = total
        self._tokens_per_second = ""
        self._bar = tqdm(total=total, initial=done, disable=hidden, unit="step", dynamic_ncols=True, smoothing=0.1)

    def advance(self, means: dict[str, float]) -> None:
        """Count one step and show its loss and, for pairs, its margin."""
        shown = {"loss": f"{means['loss']:.4f}"}
        for name in ("margin", "rewards/margins"):
            if name in means:
                shown["margin"] = f"{means[name]:+.3f}"
        if self._tokens_per_second:
            shown["tokens/s"] = self._tokens_per_second
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def show(self, line: dict[str, float]) -> None:
        """Print one line of the run log: training lines and, marked "eval", evaluation lines."""
        prefix = "eval_" if "eval_loss" in line else ""
        width = len(str(self._total))
        parts = [f"{'eval' if prefix else 'step'} {line['step']:>{width}}/{self._total}", f"epoch {line['epoch']:.2f}"]
        for name, (label, form) in _SHOWN.items():
            if prefix + name in line:
                parts.append(f"{label} {form.format(line[prefix + name])}")
        if not prefix:
            self._tokens_per_second = f"{line['tokens_per_second']:,.0f}"
        self.say("  ".join(parts))

    def say(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        tqdm.write(text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()
