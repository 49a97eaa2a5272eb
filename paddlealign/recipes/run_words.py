"""What a training run says of itself: what its curves mean as they come, and at the end what it leaves."""

from pathlib import Path
from typing import Any

from paddlealign.arguments.fields import TrainingArguments
from paddlealign.arguments.paths import CURVES_FILE, METRICS_FILE, PAGE_FILE
from paddlealign.arguments.results import TrainArguments
from paddlealign.recipes.device import say
from paddlealign.recipes.run_page import RunPage
from paddlealign.report.watch import Watch, tell
from paddlealign.training.checkpoint import TrainState
from paddlealign.training.progress import Progress
from paddlealign.training.run_log import RunLog, read_metrics


def start_log(
    output_dir: Path | None,
    state: TrainState,
    total: int,
    settings: TrainingArguments,
    watch: Watch,
    progress: Progress,
    page: RunPage,
) -> RunLog:
    """Open the run log, see ``RunLog``; what ``watch`` finds in new lines is said, what it finds in those of an earlier start was.

    state: from which the run goes on. total: its steps. page: is written anew with each evaluation and with each step's samples.
    """

    def hear(line: dict[str, Any]) -> None:
        for finding in watch.see(line):
            progress.say(tell(finding))
        if "eval_loss" in line or "samples/length" in line:
            page.refresh(watch.found)

    # What an earlier start may have done after its last checkpoint, at that very step, is done again.
    evaluates_last = settings.do_eval and settings.evaluation_strategy == "no" and state.step == total
    answers = state.owes or not settings.do_train
    repeats = (("eval_loss",) if evaluates_last or answers else ()) + (("samples/length",) if answers else ())
    log = RunLog(output_dir, state.step, settings.report_to, hear, progress.say, repeats)
    for line in read_metrics(output_dir) if output_dir else []:
        watch.see(line)
    return log


def tell_end(arguments: TrainArguments, seconds: float, watch: Watch, held: str, stored: str, is_adapter: bool) -> None:
    """Tell what the curves say, what was left where, and what to know of it. held, stored: dtypes, now and before."""
    output_dir = Path(arguments.training.output_dir)
    if not arguments.training.do_train:
        say(f"done in {seconds:.1f} s: {METRICS_FILE} is in {output_dir}")
        return
    say(watch.summary())
    say(f"done in {seconds:.1f} s: the {'adapter' if is_adapter else 'model'}, {METRICS_FILE} and {CURVES_FILE} are in {output_dir}")
    say(f"the run's page: {output_dir / PAGE_FILE}")
    if is_adapter:
        base = arguments.model.model_name_or_path
        say(f"python -m paddlealign.export --model_name_or_path {base} --lora_path {output_dir} --output_dir ... merges it into the base")
    elif held != stored:
        way = f"python -m paddlealign.export --dtype {stored} writes it so"
        say(f"note: saved in {held}, as it was trained; the checkpoint was {stored} ({way})")
    if arguments.data.chat_template == "none":
        say("trained on plain text (chat_template none): give predict.py --chat_template none too")
