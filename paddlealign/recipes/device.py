"""Where a command computes, and how it speaks: what training and prediction share."""

import os
import sys

import paddle

from paddlealign.arguments.results import Arguments
from paddlealign.arguments.show import render, render_given
from paddlealign.errors import UserError
from paddlealign.messages.language import translated
from paddlealign.models.config import DecoderConfig
from paddlealign.saying import is_said, tells_all


def choose_device(wanted: str) -> str:
    """Set and return the device: "cpu" or "gpu"; "auto" takes a GPU where Paddle sees one."""
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if wanted == "gpu" and not has_gpu:
        raise UserError("device: gpu, but Paddle sees none (is paddlepaddle-gpu installed?); allowed here: cpu, auto")
    device = "gpu" if has_gpu and wanted != "cpu" else "cpu"
    paddle.set_device(device)
    return device


def choose_dtype(wanted: str, config: DecoderConfig, device: str) -> str:
    """The dtype of the weights. Paddle's CPU build has no half-precision kernels, so on "cpu" it is float32 in any case."""
    if device == "cpu":
        if wanted not in ("auto", "float32"):
            say(f"note: dtype {wanted}: Paddle has no {wanted} kernels on CPU; computing in float32")
        return "float32"
    return config.dtype if wanted == "auto" else wanted


def in_colour() -> bool:
    """Whether stdout is a terminal that shows colours, and NO_COLOR (no-color.org) does not forbid them."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def introduce(arguments: Arguments) -> None:
    """Show what a command was told, and the notes on it."""
    say(render(arguments) if tells_all() else render_given(arguments))
    for note in arguments.notes:
        say(f"note: {note}")


def say(text: str) -> None:
    """Print a line at once, also into a pipe, where ``log_level`` lets it."""
    if is_said(text):
        show(text)


def show(text: str) -> None:
    """Print what was asked for, whatever ``log_level`` is."""
    print(translated(text), flush=True)
