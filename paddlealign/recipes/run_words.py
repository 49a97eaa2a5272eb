"""What a training run says of itself: what its curves mean as they come, and at the end what it leaves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlealign.arguments.fields import MAIN_SCRIPTS
from paddlealign.arguments.paths import CURVES_FILE, METRICS_FILE, PAGE_FILE, RUN_FILE
from paddlealign.arguments.results import TrainArguments
from paddlealign.arguments.show import arguments_dict, labelled
from paddlealign.arguments.viewer_names import viewers_of
from paddlealign.data.chunk_counts import Told
from paddlealign.messages.language import translated
from paddlealign.recipes.device import say
from paddlealign.recipes.next_commands import next_commands, run_beside
from paddlealign.recipes.run_file import argument_values
from paddlealign.recipes.run_page import RunPage
from paddlealign.recipes.start_block import Entry
from paddlealign.report.watch import Watch, tell
from paddlealign.saying import is_said
from paddlealign.training.checkpoint import TrainState
from paddlealign.training.progress import Progress, in_words
from paddlealign.training.run_log import RunLog, read_metrics
from paddlealign.training.viewers import About, Lines, Viewers


def start_log(
    output_dir: Path | None,
    state: TrainState,
    total: int,
    arguments: TrainArguments,
    watch: Watch,
    progress: Progress,
    page: RunPage,
) -> RunLog:
    """Open the run log, see ``RunLog``; what ``watch`` finds in new lines is said, what it finds in those of an earlier start was.

    state: from which the run goes on. total: its steps. page: is written anew with each evaluation and with each step's samples.
    """
    settings = arguments.training

    def hear(line: dict[str, Any]) -> None:
        for finding in watch.see(line):
            progress.say(tell(finding), warns=True)
        if "eval_loss" in line or "samples/length" in line:
            page.refresh(watch.found)

    # What an earlier start may have done after its last checkpoint, at that very step, is done again.
    evaluates_last = settings.do_eval and settings.evaluation_strategy == "no" and state.step == total
    answers = state.owes or not settings.do_train
    repeats = (("eval_loss",) if evaluates_last or answers else ()) + (("samples/length",) if answers else ())
    log = RunLog(output_dir, state.step, viewers_of_run(arguments, state.step > 0, progress.say), hear, progress.say, repeats)
    for line in read_metrics(output_dir) if output_dir else []:
        watch.see(line)
    return log


def viewers_of_run(arguments: TrainArguments, resumes: bool, tell: Callable[[str], None]) -> Callable[[Lines], Viewers] | None:
    """What opens the viewers that ``report_to`` names; None where it names none. resumes: from a checkpoint."""
    settings, names = arguments.training, viewers_of(arguments.training.report_to)
    config = argument_values(arguments_dict(arguments))
    # What TRL's SFT calls the share of scored tokens that are predicted right, and the tokens seen; of pairs the names are the same.
    renamed = {"accuracy": "mean_token_accuracy", "tokens": "num_tokens"} if arguments.command == "sft" else {}
    about = About(settings.run_name or settings.output_dir, config, renamed, resumes)
    return (lambda lines: Viewers(names, Path(settings.output_dir), about, lines, tell)) if names else None


def tell_start(arguments: TrainArguments, entries: Sequence[Entry]) -> None:
    """What a run is, see ``start_entries``."""
    script = MAIN_SCRIPTS[arguments.command]
    say(f"{script} {arguments.file}" if arguments.file else script)
    for label, text in entries:
        say(labelled(label, text))


@dataclass(frozen=True)
class EndOfRun:
    """What a finished run comes to.

    seconds, tokens: of this start. rows: of the run log. dtypes: of the stored weights before, and now. told: see ``Rows``.
    """

    state: TrainState
    seconds: float
    tokens: int
    rows: Sequence[Mapping[str, Any]]
    dtypes: tuple[str, str]
    told: Mapping[str, Told]


def tell_end(arguments: TrainArguments, end: EndOfRun, watch: Watch) -> None:
    """What the curves say, what the run came to, what was left where, and what to run next."""
    settings, output_dir = arguments.training, Path(arguments.training.output_dir)
    if not settings.do_train:
        say(f"done in {in_words(end.seconds)}: {METRICS_FILE} is in {output_dir}")
        return
    say(watch.summary())
    stored, held = end.dtypes
    say(f"done in {in_words(end.seconds)}")
    for label, text in end_entries(arguments, end):
        say(labelled(label, text))
    if not arguments.adapter.lora and held != stored:
        say(f"note: saved in {held}, as it was trained; the checkpoint was {stored}")
    files = end.told["dev"].read.files if "dev" in end.told else ()
    say("next:")
    other = run_beside(output_dir, arguments.command)
    for command, what in next_commands(arguments, files[0] if files else None, stored, held, other):
        say(f"  {translated(what)}:")
        if is_said(command):
            print(f"    {command}", flush=True)  # as it stands: a path may hold words that messages have


def end_entries(arguments: TrainArguments, end: EndOfRun) -> list[Entry]:
    """The end block's entries: speed and memory, the figures at both ends, the best evaluation, and where everything is."""
    output_dir = Path(arguments.training.output_dir)
    speed = f"{end.tokens / end.seconds:,.0f} tokens/s, evaluations and checkpoints included"
    entries = [("speed", speed)]
    trained = [row for row in end.rows if "loss" in row]
    if trained:
        entries.append(("memory", f"at most {max(row.get('memory_gib') or 0.0 for row in trained):.2f} GiB"))
        entries.append(("train", _figures(trained[0], trained[-1], "")))
    evaluated = [row for row in end.rows if "eval_loss" in row]
    if evaluated:
        entries.append(("dev", _figures(evaluated[0], evaluated[-1], "eval_")))
        if arguments.training.evaluation_strategy != "no":
            entries.append(("best", best_text(arguments, end)))
    kind = "adapter" if arguments.adapter.lora else "model"
    entries.append((kind, f"{output_dir}, with {METRICS_FILE}, {CURVES_FILE} and {RUN_FILE} (all arguments)"))
    entries.append(("page", f"{output_dir / PAGE_FILE}"))
    return entries


def best_text(arguments: TrainArguments, end: EndOfRun) -> str:
    """The best evaluation, and where its weights are."""
    settings, state = arguments.training, end.state
    if state.best_step is None or state.best_metric is None:
        return "no evaluation whose weights could be kept"
    best = f"eval {settings.metric_for_best_model} {state.best_metric:.4f} at step {state.best_step:,}"
    folder = Path(settings.output_dir) / f"checkpoint-{state.best_step}"
    if settings.load_best_model_at_end or state.best_step == state.step:
        return f"{best}, which is the final model"
    return f"{best}: {folder}" if folder.is_dir() else f"{best}, of which no checkpoint was kept (load_best_model_at_end keeps it)"


_FIGURES = (
    ("loss", ("loss",), ".4f"),
    ("accuracy", ("accuracy", "rewards/accuracies"), ".3f"),
    ("margin", ("margin", "rewards/margins"), "+.3f"),
)


def _figures(first: Mapping[str, Any], last: Mapping[str, Any], prefix: str) -> str:
    """Each figure at both ends, or once where there is one line only."""
    found = []
    for title, names, form in _FIGURES:
        name = next((prefix + name for name in names if prefix + name in last), None)
        if name is not None:
            values = [row[name] for row in ([first, last] if first is not last else [last]) if row.get(name) is not None]
            found.append(f"{title} {' to '.join(f'{value:{form}}' for value in values) or 'not a number'}")
    return ", ".join(found)
