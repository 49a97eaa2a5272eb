"""Figures over scored rows: rewards, perplexity, winners, the length-controlled win rate; worked out on paper, or known from elsewhere."""

import math

import numpy as np
import pytest

from paddlealign.data.example import Message, Record
from paddlealign.errors import UserError
from paddlealign.evaluation.length_control import fit_logistic, length_controlled_rate
from paddlealign.evaluation.matching import match_answers
from paddlealign.evaluation.perplexity import sum_by_response, summarise_nll
from paddlealign.evaluation.rewards import summarise_pairs, summarise_rewards
from paddlealign.evaluation.winners import Tally, outcomes_of, tally_of, wilson_interval


def test_rewards() -> None:
    assert summarise_rewards(np.float32([1, 2, 6])) == pytest.approx({"mean": 3, "spread": (14 / 3) ** 0.5, "least": 1, "highest": 6})


def test_pairs() -> None:
    """Differences 2, -1 and 0: equal rewards count as wrong."""
    found = summarise_pairs(np.float32([[1, -1], [0, 1], [3, 3]]))
    loss = (np.log1p(np.exp(-2)) + np.log1p(np.exp(1)) + np.log(2)) / 3
    assert found == pytest.approx({"accuracy": 1 / 3, "mean_margin": 1 / 3, "loss": loss})


# ---- perplexity


def test_nlls_are_summed_in_float64_by_response() -> None:
    rng = np.random.default_rng(0)
    logps = -rng.exponential(2.0, 400_000).astype(np.float32)
    owner = rng.permutation(np.arange(len(logps)) % 3)
    nlls, tokens = sum_by_response(logps, owner, 4)  # the fourth has no token
    wanted = [-math.fsum(float(value) for value in logps[owner == index]) for index in range(4)]
    assert nlls == pytest.approx(wanted, rel=1e-13) and nlls.dtype == np.float64
    assert tokens.tolist() == [133_334, 133_333, 133_333, 0]


def test_perplexity_weighs_tokens_not_rows() -> None:
    """A uniform guess among 7 has perplexity 7; 30 tokens of ln 2 and 10 of ln 32 have the mean 2 ln 2."""
    assert summarise_nll(np.array([3, 5]) * np.log(7), np.array([3, 5])) == pytest.approx({"mean": np.log(7), "perplexity": 7}, rel=1e-14)
    found = summarise_nll(np.array([30 * np.log(2), 10 * np.log(32)]), np.array([30, 10]))
    assert found == pytest.approx({"mean": 2 * np.log(2), "perplexity": 4}, rel=1e-14)


# ---- winners


def test_outcomes_and_the_tie_margin() -> None:
    margins = np.array([0.5, -0.5, 0.0, 0.1, -0.1, 0.1000001])
    assert outcomes_of(margins, 0.0).tolist() == [1, 0, 0.5, 1, 0, 1]
    assert outcomes_of(margins, 0.1).tolist() == [1, 0, 0.5, 0.5, 0.5, 1]
    tally = tally_of(outcomes_of(margins, 0.1))
    assert (tally, tally.rows) == (Tally(2, 3, 1), 6) and tally.win_rate == pytest.approx(3.5 / 6)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes / trials, trials) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(1 - successes / trials, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


# ---- the length-controlled win rate


def test_a_known_logistic_regression() -> None:
    """Hours of study and passed exams of 20 students, in the Wikipedia article on logistic regression: -4.0777 + 1.5046 x."""
    hours = np.array([0.5, 0.75, 1, 1.25, 1.5, 1.75, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 4, 4.25, 4.5, 4.75, 5, 5.5])
    passed = np.array([0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1], np.float64)
    assert fit_logistic(passed, hours) == pytest.approx((-4.0777, 1.5046), abs=5e-5)


def test_two_lengths_have_a_closed_form() -> None:
    """At +d A wins 9 of 10, at -d 1 of 4: the logits are fitted exactly, and that at 0 lies in the middle."""
    outcomes = np.array([1] * 9 + [0] + [1] + [0] * 3, np.float64)
    differences = np.array([30.0] * 10 + [-30.0] * 4)
    rate, why = length_controlled_rate(outcomes, differences)
    logit = (math.log(9) + math.log(1 / 3)) / 2
    assert (rate, why) == (pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-9), "")
    # In another unit of length it is the same, and from B's side the rest of 1.
    assert length_controlled_rate(outcomes, differences / 7)[0] == pytest.approx(rate, rel=1e-9)
    assert length_controlled_rate(1 - outcomes, -differences)[0] == pytest.approx(1 - rate, rel=1e-9)


def test_the_maximum_of_the_likelihood_is_found() -> None:
    """The score equations of the paper's model hold, ties counting as half; and what length alone brought about is taken out."""
    rng = np.random.default_rng(2)
    differences = rng.normal(40, 100, 8000).round()
    x = np.tanh(differences / differences.std(ddof=1))
    outcomes = (rng.random(8000) < 1 / (1 + np.exp(0.5 - 2.0 * x))).astype(np.float64)
    outcomes[rng.random(8000) < 0.02] = 0.5
    fitted = fit_logistic(outcomes, x)
    assert fitted is not None
    constant, slope = fitted
    left = outcomes - 1 / (1 + np.exp(-constant - slope * x))
    assert abs(left.sum()) < 1e-8 and abs((left * x).sum()) < 1e-8
    rate = length_controlled_rate(outcomes, differences)[0]
    assert rate == pytest.approx(1 / (1 + math.exp(-constant)), rel=1e-9)
    assert rate == pytest.approx(1 / (1 + math.exp(0.5)), abs=0.04) and outcomes.mean() > rate + 0.08


def test_a_step_that_leads_too_far_is_halved() -> None:
    """A thousand losses about 0 and a few wins far out: whole Newton steps never settle."""
    x = np.array([*np.linspace(-0.01, -0.0095, 1000), *[0.9] * 5, 0.0])
    outcomes = np.array([*[0.0] * 1000, *[1.0] * 6])
    fitted = fit_logistic(outcomes, x)
    assert fitted is not None
    left = outcomes - 1 / (1 + np.exp(-fitted[0] - fitted[1] * x))
    assert max(abs(left.sum()), abs((left * x).sum())) < 1e-9


@pytest.mark.parametrize(
    ("outcomes", "differences", "rate", "why"),
    [
        ([1, 1, 1], [5, -3, 0], None, "A won every row"),
        ([0, 0], [5, -3], None, "B won every row"),
        ([1, 0, 0.5, 1], [0, 0, 0, 0], 0.625, ""),
        ([1, 0, 0.5], [4, 4, 4], None, "the lengths differ by the same 4 in every row"),
        ([1, 1, 0, 0], [9, 5, 1, -7], None, "A wins where its answer is longer by enough"),
        ([0, 0, 1, 1], [9, 5, 5, -7], None, "A wins where its answer is shorter by enough"),
        ([1, 0.5, 0], [9, 5, 1], None, "longer by enough"),
        ([0.5, 0.5], [9, -9], 0.5, ""),
        ([1], [3], None, "A won every row"),
        ([0.5], [3], None, "the same 3"),
        ([1, 0, 1, 0], [1000, 1001, 1002, 1003], None, "A's answer is longer by too much alike in every row"),
        ([1, 0, 1, 0], [-1000, -1001, -1002, -1003], None, "A's answer is shorter by too much alike in every row"),
    ],
)
def test_rows_that_do_not_tell_are_told(outcomes: list[float], differences: list[float], rate: float | None, why: str) -> None:
    found, reason = length_controlled_rate(np.array(outcomes, np.float64), np.array(differences, np.float64))
    assert found == (None if rate is None else pytest.approx(rate)) and why in reason and bool(reason) == (rate is None)


# ---- matching


def answer(prompt: str, source: str, system: str = "", tool: str = "") -> Record:
    before = (Message("system", system),) if system else ()
    return Record((*before, Message("user", prompt)), ("text",), False, source, ({"name": tool},) if tool else None)


def test_answers_are_matched_by_prompt() -> None:
    first = [answer("p", "a:1"), answer("q", "a:2"), answer("p", "a:3", system="s"), answer("p", "a:4", tool="t")]
    second = [answer("p", "b:0", tool="t"), answer("q", "b:1"), answer("p", "b:2", system="s"), answer("p", "b:3")]
    assert match_answers(first, second, ("a", "b")) == [3, 1, 2, 0]


def test_what_does_not_match_is_named_by_file_and_line() -> None:
    first = [answer("p", "a:1"), answer("q", "a:2"), answer("q", "a:4"), answer("r", "a:5"), answer("r", "a:5")]
    with pytest.raises(UserError) as caught:
        match_answers(first, [answer("p", "b:1", system="s"), answer("q", "b:2"), answer("r", "b:3")], ("a", "b"))
    told = str(caught.value)
    assert "a (5) and b (3)" in told and "a:4: the prompt stands at a:2 already." in told and "a:5: the row holds several answers" in told
    assert 'a:1: b has no answer to this prompt: "p"' in told and 'b:1: a has no answer to this prompt: "p"' in told
    many = [answer(f"{number} {'x' * 100}", f"a:{number}") for number in range(9)]
    with pytest.raises(UserError) as caught:
        match_answers(many, [answer("p", "b:1")], ("a", "b"))
    assert str(caught.value).count("a:") == 5 and "... and 5 more" in str(caught.value) and 'xx..."' in str(caught.value)
