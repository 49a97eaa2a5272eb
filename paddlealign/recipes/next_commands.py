"""What to run after a training run: commands that stand as they are, with the paths of this run."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from paddlealign.arguments.model_files import read_json_object
from paddlealign.arguments.paths import RUN_FILE
from paddlealign.arguments.results import DpoArguments, TrainArguments
from paddlealign.errors import UserError

PAIRS = "PAIRS"  # stands for rows that the user has yet to name
_LOOKED_AT = 20  # of the runs beside this one, the newest


def next_commands(
    arguments: TrainArguments, dev_file: Path | None, stored: str, held: str, other: Path | None = None
) -> list[tuple[str, str]]:
    """Each command with what it does.

    dev_file: a file of the run's dev rows. stored, held: dtypes of the weights, before and now. other: see ``run_beside``.
    """
    found = [(shlex.join(["python", *words]), what) for words, what in _words(arguments, dev_file, stored, held)]
    if other is not None:
        words = ["python", "-m", "paddlealign.report", str(other), arguments.training.output_dir.rstrip("/")]
        found.append((shlex.join(words), "lay its curves over those of the run before"))
    return found


def run_beside(output_dir: Path, command: str) -> Path | None:
    """The folder of the newest finished run of the same command that lies beside this one; None where there is none."""
    here = output_dir.resolve()
    files = [path for path in output_dir.parent.glob(f"*/{RUN_FILE}") if path.parent.resolve() != here]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)[:_LOOKED_AT]:
        try:
            run = read_json_object(path)
        except UserError:
            continue
        if run.get("finished") is True and run.get("command") == command:
            return path.parent
    return None


def _words(arguments: TrainArguments, dev_file: Path | None, stored: str, held: str) -> Iterator[tuple[list[str], str]]:
    output, base = arguments.training.output_dir.rstrip("/"), arguments.model.model_name_or_path
    has_adapter = arguments.adapter.lora
    trained = ["--model_name_or_path", base, "--lora_path", output] if has_adapter else ["--model_name_or_path", output]
    template = ["--chat_template", "none"] if arguments.data.chat_template == "none" else []
    dev = [] if dev_file is None else ["--data_file", str(dev_file)]
    if arguments.command != "reward":
        yield ["predict.py", *trained, *template, "--interactive", "true"], "talk to it"
    if arguments.command == "sft" and dev:
        words = [*trained, *template, *dev, "--output_file", f"{output}/perplexity.jsonl"]
        yield ["evaluate.py", "perplexity", *words], "see how likely it finds the dev answers"
    if arguments.command == "reward":
        words = [*trained, *template, *(dev or ["--data_file", PAIRS]), "--output_file", f"{output}/scores.jsonl"]
        yield ["evaluate.py", "rewards", *words], "score pairs, and see how many are ranked right"
    if isinstance(arguments, DpoArguments) and dev:
        before = ["--baseline_model_name_or_path", arguments.objective.ref_model_name_or_path or base]
        words = [*trained, *before, *template, *dev, "--output_file", f"{output}/compared.jsonl"]
        yield ["evaluate.py", "compare", *words], "put its answers beside those of before"
    export, merged = ["-m", "paddlealign.export", *trained], f"{output}-merged"
    if has_adapter and arguments.command != "reward":
        yield [*export, "--output_dir", merged], "merge the adapter into its base"
    elif not has_adapter and held != stored:
        yield [*export, "--dtype", stored, "--output_dir", f"{output}-{stored}"], f"write it in {stored}, as the checkpoint was"
    if arguments.command == "sft":
        words = ["--model_name_or_path", merged if has_adapter else output, *template, "--dataset_name_or_path", PAIRS]
        yield (
            ["dpo_main.py", *words, "--do_train", "true", "--output_dir", f"{output}-dpo"],
            f"align it; {PAIRS}: a folder of preference rows",
        )
