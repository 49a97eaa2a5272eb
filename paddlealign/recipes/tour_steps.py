"""The steps of the tour: what each says, the command that it runs, what that makes, and which figures to look at. Pure functions."""

import shlex
from dataclasses import dataclass

SFT_STEPS, DPO_STEPS = 100, 40
QUESTIONS = ("How many legs does a spider have?", "I have 7 apples and get 5 more. How many do I have now?", "3加4等于几？谢谢！")


@dataclass(frozen=True)
class Figure:
    """A figure of a run to look at. metric: its name in metrics.jsonl. meaning: what it says."""

    metric: str
    meaning: str


@dataclass(frozen=True)
class Step:
    """A step of the tour.

    about: what it does, a line each. command: the words behind ``python``. makes: the files and folders that it leaves. needs: the steps
    that it goes on from. seconds: what it takes on two cores. run, figures: whose figures are shown afterwards, and which.
    answers: files of answers to show side by side, by what they are called. talks: whether it is a chat.
    """

    name: str
    title: str
    about: tuple[str, ...]
    command: tuple[str, ...]
    makes: tuple[str, ...]
    needs: tuple[str, ...]
    seconds: float
    run: str = ""
    figures: tuple[Figure, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    talks: bool = False

    @property
    def line(self) -> str:
        """The command as a user types it."""
        return shlex.join(("python", *self.command))


def steps_of(folder: str, steps: int | None = None) -> list[Step]:
    """The tour whose files lie in ``folder``. steps: training steps of each run, None for ``SFT_STEPS`` and ``DPO_STEPS``."""
    sft, dpo = (steps or SFT_STEPS), (steps or DPO_STEPS)
    base, tuned = f"{folder}/answers_base.jsonl", f"{folder}/answers_sft.jsonl"
    training = ("sft_main.py", "scripts/llama/quickstart_sft.json", "--output_dir", f"{folder}/sft", "--max_steps", str(sft))
    return [
        Step(
            "check",
            "look before you train",
            (
                "--check does everything up to the first step, and changes nothing: it reads rows and model, and tells what it found.",
                "Look at the example: what stands between ⟦ ⟧ is all that the model will learn.",
            ),
            (*training, "--check"),
            (),
            (),
            7,
        ),
        Step(
            "answers_base",
            "what the model answers now",
            (
                "data/base_model is a small LLaMA (3.8 M parameters) that knows everyday questions and sums in English and Chinese.",
                "predict.py lets it answer 240 prompts that no training row has, so that there is something to compare with.",
            ),
            _predict("data/base_model", base),
            _files(base),
            (),
            5,
            answers=(("base", base),),
        ),
        Step(
            "sft",
            "supervised fine-tuning (SFT)",
            (
                "The model learns to say what the rows of data/sft answer, token by token. The same command as in step 1, without --check.",
                "Half of these rows answer warmly and half answer stiffly, so the model will do both.",
            ),
            training,
            (f"{folder}/sft",),
            (),
            8 + 0.4 * sft,
            run=f"{folder}/sft",
            figures=(
                Figure("loss", "nats a token, of rows that it trains on; lower is better"),
                Figure("eval_loss", "the same of rows that it never trains on; where this rises while loss falls, it learns by heart"),
                Figure("eval_accuracy", "share of tokens of those rows that are the model's first choice"),
            ),
        ),
        Step(
            "answers_sft",
            "what it answers after SFT",
            ("The same 240 prompts again, answered by the model that SFT has left.",),
            _predict(f"{folder}/sft", tuned),
            _files(tuned),
            ("sft",),
            5,
            answers=(("base", base), ("after SFT", tuned)),
        ),
        *_preferences(folder, dpo),
        *_looks(folder, tuned),
    ]


def _preferences(folder: str, steps: int) -> list[Step]:
    """DPO twice, with one key changed."""
    training = (
        *("dpo_main.py", "scripts/llama/quickstart_dpo.json", "--model_name_or_path", f"{folder}/sft", "--max_steps", str(steps)),
        # In so few steps most rows are never met: a frozen copy of the model costs less than the log-probs of all rows beforehand.
        *("--learning_rate", "2e-4", "--reference_mode", "frozen"),
        *("--evaluation_strategy", "steps", "--eval_steps", str(max(1, steps // 2))),
        *("--sample_during_eval", "true", "--sample_data_file", "data/heldout.json"),
    )
    return [
        Step(
            "dpo",
            "direct preference optimization (DPO)",
            (
                "Each row of data/dpo has a prompt, a chosen answer (warm and right) and a rejected one; it learns to prefer the first.",
                "It is held to the model that SFT left, the reference; beta, here 0.5, says how tightly.",
                "--sample_during_eval lets it answer some prompts before and after, for the run's page.",
            ),
            (*training, "--output_dir", f"{folder}/dpo"),
            (f"{folder}/dpo",),
            ("sft",),
            12 + 0.9 * steps,
            run=f"{folder}/dpo",
            figures=(
                Figure("loss", "0.693 (the logarithm of 2) where both answers are alike to it; lower is better"),
                Figure("rewards/margins", "by how much it prefers the chosen answer more than the reference does, times beta"),
                Figure("eval_rewards/accuracies", "share of pairs it never trains on where that margin is above 0"),
            ),
        ),
        Step(
            "dpo_beta",
            "the same with another beta",
            (
                "One key is changed, so that there are two runs to compare: with beta 0.1 the model may go further from the reference.",
                "Its margins are smaller since beta is a factor of them; compare the accuracies, which beta does not scale.",
            ),
            (*training, "--output_dir", f"{folder}/dpo_beta_0.1", "--beta", "0.1"),
            (f"{folder}/dpo_beta_0.1",),
            ("sft",),
            12 + 0.9 * steps,
            run=f"{folder}/dpo_beta_0.1",
            figures=(
                Figure("rewards/margins", "a fifth of the other run's where it goes as far"),
                Figure("eval_rewards/accuracies", "comparable as it is"),
            ),
        ),
    ]


def _looks(folder: str, tuned: str) -> list[Step]:
    """What came of it: the answers after DPO, who wins, one page of both runs, and a chat. tuned: the answers after SFT."""
    aligned = f"{folder}/answers_dpo.jsonl"
    return [
        Step(
            "answers_dpo",
            "what it answers after DPO",
            ("The same 240 prompts, answered by the model of the first DPO run.",),
            _predict(f"{folder}/dpo", aligned),
            _files(aligned),
            ("dpo",),
            6,
            answers=(("after SFT", tuned), ("after DPO", aligned)),
        ),
        Step(
            "judge",
            "who answers better",
            (
                "A judge compares the answers prompt by prompt. This one is a function in Python that knows what is right and warm;",
                "a reward model, or the log-probs of two models, may judge as well. A is after DPO, B after SFT.",
            ),
            (
                *("evaluate.py", "judge", "--answers_a", aligned, "--answers_b", tuned),
                *("--judge", "scripts/sample/judges.py:preferred", "--output_file", f"{folder}/judged.jsonl"),
            ),
            (f"{folder}/judged.jsonl",),
            ("answers_sft", "answers_dpo"),
            3,
        ),
        Step(
            "page",
            "one page of both DPO runs",
            (
                "Each run has left a page of its own, report.html in its folder. This command lays the curves of both over each other,",
                "with a table of the arguments that differ. It is one file; open it in a browser, or mail it.",
            ),
            ("-m", "paddlealign.report", f"{folder}/dpo", f"{folder}/dpo_beta_0.1", "-o", f"{folder}/both.html"),
            (f"{folder}/both.html",),
            ("dpo", "dpo_beta"),
            2,
        ),
        Step(
            "chat",
            "talk to it",
            (
                "predict.py --interactive true is a chat in the terminal. The model knows legs, months, numbers, colours and small sums.",
                "/exit ends the chat.",
            ),
            (
                *("predict.py", "--model_name_or_path", f"{folder}/dpo", "--interactive", "true"),
                *("--max_length", "64", "--decode_strategy", "greedy_search"),
            ),
            (),
            ("dpo",),
            4,
            talks=True,
        ),
    ]


def _predict(model: str, output: str) -> tuple[str, ...]:
    return ("predict.py", "scripts/llama/quickstart_sft_predict.json", "--model_name_or_path", model, "--output_file", output)


def _files(answers: str) -> tuple[str, ...]:
    """What predict.py writes: the answers, and beside them what they were made with."""
    return (answers, f"{answers}.settings.json")


def after(steps: list[Step], name: str) -> set[str]:
    """The steps that go on from the step ``name``, directly or by way of others, and that step itself. steps: in their order."""
    found = {name}
    for step in steps:
        if found & set(step.needs):
            found.add(step.name)
    return found
