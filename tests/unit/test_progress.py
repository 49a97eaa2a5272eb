"""What a run shows: columns that line up whatever the numbers are, one header for many lines, a time once it is known, and levels."""

import pytest

from paddlealign.saying import is_said, shows_bars, speaking, tells_all
from paddlealign.training.progress import HEADER_EVERY, TIMED_STEPS, Progress, cell, in_words

TRAIN = {"learning_rate": 1e-4, "grad_norm": 4.04, "tokens_per_second": 1249.0, "epoch": 0.01}
SFT = {**TRAIN, "loss": 0.6931, "accuracy": 0.75}
PAIRS = {"loss": 0.6931, "rewards/margins": 0.06, "rewards/accuracies": 0.75, "rewards/chosen": 0.1, "rewards/rejected": -0.1}
REWARD = {**TRAIN, "loss": 0.74, "accuracy": 0.359, "margin": -0.078, "mean_reward": -1.246}


def shown(capsys: pytest.CaptureFixture, *lines: dict, total: int = 200) -> list[str]:
    progress = Progress(total, 0, disable=True)
    for line in lines:
        progress.show(line)
    progress.close()
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("values", "titles"),
    [
        (SFT, "epoch loss accuracy lr norm tokens/s"),
        ({**TRAIN, **PAIRS}, "epoch loss accuracy margin chosen rejected lr norm tokens/s"),
        (REWARD, "epoch loss accuracy margin reward lr norm tokens/s"),
    ],
)
def test_rows_stand_under_their_titles(capsys: pytest.CaptureFixture, values: dict, titles: str):
    dev = {f"eval_{name}": value for name, value in values.items() if name not in ("learning_rate", "grad_norm", "epoch")}
    wild = {**values, "loss": 123456.789, "grad_norm": float("nan"), "tokens_per_second": 1234567.0}
    head, *rows = shown(capsys, {"step": 5, **values}, {"step": 100, **wild}, {"step": 200, "epoch": 1.0, **dev})
    assert head.split() == titles.split()
    ends = [place + 1 for place, character in enumerate(head) if character != " " and head[place + 1 : place + 2] in ("", " ")]
    assert [row[:12] for row in rows] == ["step   5/200", "step 100/200", "eval 200/200"]
    for row in rows:
        padded = row.ljust(len(head))
        assert all(padded[end : end + 1] in ("", " ") for end in ends), row  # no number runs over its column
    assert "123,457" in rows[1] and "nan" in rows[1]


def test_a_header_comes_back_and_new_columns_bring_one(capsys: pytest.CaptureFixture):
    said = shown(capsys, *({"step": step, **SFT} for step in range(1, HEADER_EVERY + 2)))
    assert [number for number, line in enumerate(said) if line.split()[0] == "epoch"] == [0, HEADER_EVERY + 1]
    said = shown(capsys, {"step": 1, **SFT}, {"step": 1, "epoch": 1.0, "eval_loss": 1.0, "eval_kl": 0.5}, {"step": 2, **SFT})
    assert [line.split()[0] for line in said] == ["epoch", "step", "epoch", "eval", "step"] and "KL" in said[2]


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.69314, 4, "  0.6931"),
        (-123.4567, 3, "-123.457"),
        (12345678.9, 3, " 1.2e+07"),
        (9.55e-06, -1, "9.55e-06"),
        (1249.0, 0, "   1,249"),
    ],
)
def test_a_number_fits_its_column(value: float, decimals: int, text: str):
    assert cell(value, decimals, 8) == text


def test_the_time_is_told_once_it_is_known(capsys: pytest.CaptureFixture):
    moments = iter([100.0, 102.0, 104.0, 106.0, 108.0, 160.0])  # an evaluation before the last
    progress = Progress(200, 0, disable=True, clock=lambda: next(moments))
    for _ in range(TIMED_STEPS + 3):
        progress.advance({"loss": 1.0})
    progress.close()
    said = "time: about 6 min 28 s for the 194 steps to go, 2 s a step; evaluations and checkpoints apart\n"
    assert capsys.readouterr().out == said


def test_a_short_run_has_no_time_to_tell(capsys: pytest.CaptureFixture):
    progress = Progress(TIMED_STEPS + 1, 0, disable=True)
    for _ in range(TIMED_STEPS + 1):
        progress.advance({"loss": 1.0})
    progress.close()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("seconds", "text"), [(7.14, "7.1 s"), (42, "42 s"), (75, "1 min 15 s"), (1234, "21 min"), (9000, "2 h 30 min")])
def test_a_time_as_people_say_it(seconds: float, text: str):
    assert in_words(seconds) == text


@pytest.mark.parametrize(
    ("level", "line", "note", "warned", "everything"),
    [("debug", True, True, True, True), ("info", True, True, True, False), ("warning", False, True, True, False), ("error", *[False] * 4)],
)
def test_each_level_says_what_it_should(level: str, line: bool, note: bool, warned: bool, everything: bool):
    with speaking(level):
        heard = is_said("step 1/2"), is_said("note: something"), is_said("step 1: NaN", warns=True), tells_all()
    assert heard == (line, note, warned, everything)
    assert is_said("step 1/2") and not tells_all()  # afterwards as before


def test_no_bar_without_a_terminal_that_can_show_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert shows_bars()
    with speaking("warning"):
        assert not shows_bars()
    monkeypatch.setenv("TERM", "dumb")
    assert not shows_bars()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert not shows_bars()
