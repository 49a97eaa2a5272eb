"""How a peer tells the harness that a step is done: a line of JSON in a file, with what its trainer logged. Imports no framework."""

import json
from pathlib import Path
from typing import Any

KEPT = ("loss", "grad_norm", "logps/chosen", "logps/rejected")


def tell_steps(trainer: Any, path: Path) -> None:
    """Let a trainer append a line for each step that it logs. TRL's and PaddleNLP's have the same place to hear of one."""
    heard = trainer.callback_handler.on_log

    def on_log(
        args: object,
        state: object,
        control: object,
        logs: dict[str, Any],
        inputs: object = None,  # PaddleNLP's callbacks are also given these, and none that is used here wants them
        timer: object = None,
        paddle_pipeline_timers: object = None,
        metrics_dumper: object = None,
    ) -> object:
        append_line(path, logs)
        return heard(args, state, control, logs)

    trainer.callback_handler.on_log = on_log


def append_line(path: Path, logs: dict[str, Any]) -> None:
    """Append what was logged of a step; the summary at a run's end, which has no loss, is none."""
    if "loss" in logs:
        with path.open("a") as file:
            file.write(json.dumps({name: float(logs[name]) for name in KEPT if name in logs}) + "\n")
