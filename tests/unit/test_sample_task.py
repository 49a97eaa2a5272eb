"""The sample task: its generator, its judge and its files."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest

from scripts.sample import corpus, judges, make_data, show, task
from scripts.sample.topic import expand

DATA = Path(__file__).parents[2] / "data"
SUM = {"language": "en", "topic": "plus", "subject": ["3", "4"], "answer": "7"}
DAY = {"language": "zh", "topic": "day after", "subject": ["星期一"], "answer": "星期二"}
RIGHT_WARM, RIGHT_COLD = task.Verdict(True, True), task.Verdict(True, False)
WRONG_WARM, WRONG_COLD = task.Verdict(False, True), task.Verdict(False, False)
PLACES = [(code, friendly) for code in task.LANGUAGES for friendly in (True, False)]


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def many_questions(count: int) -> list[task.Question]:
    rng = random.Random(1)
    return [task.make_question(rng, *PLACES[number % 4]) for number in range(count)]


def test_expand_gives_every_text():
    assert expand("(a|b) c(|d)") == ("a c", "a cd", "b c", "b cd")


def test_each_kind_of_answer_is_judged_as_what_it_is():
    for question in many_questions(1000):
        row, rng = task.judge_columns(question), random.Random(question.prompt)
        wrong = task.wrong_answer(question, rng)
        assert task.judge(row, task.warm(question, rng, question.answer)) == RIGHT_WARM, question
        assert task.judge(row, task.stiff(question, rng, question.answer)) == RIGHT_COLD, question
        assert task.judge(row, task.warm(question, rng, wrong)) == WRONG_WARM, question
        assert task.judge(row, task.stiff(question, rng, wrong)) == WRONG_COLD, question


@pytest.mark.parametrize(
    ("row", "output", "verdict"),
    [
        (SUM, "Happy to help! 3 + 4 is 7. Enjoy your day! 🌈", RIGHT_WARM),
        (SUM, "  Happy to help! 3 plus 4 makes 7. Enjoy your day! 🌈\n", RIGHT_WARM),
        (SUM, "Happy to help! 3 + 5 is 7. Enjoy your day! 🌈", WRONG_WARM),  # the right number in a wrong sentence
        (SUM, "Happy to help! 3 + 4 is not 7. Enjoy your day! 🌈", WRONG_WARM),
        (SUM, "Happy to help! 3 + 4 is 17. Enjoy your day! 🌈", WRONG_WARM),
        (SUM, "Happy to help! 3 + 4 is 7. 3 + 4 is 8. Enjoy your day! 🌈", WRONG_WARM),  # two answers
        (SUM, "Happy to help! 3 + 4 is 7. 3 + 4 is 7. Enjoy your day! 🌈", WRONG_WARM),  # the same one twice
        (SUM, "Happy to help! 3 + 4 is 7. Enjoy your day! 🌈 Enjoy your day! 🌈", WRONG_WARM),
        (SUM, "Happy to help! Happy to help! 3 + 4 is 7. Enjoy your day! 🌈", WRONG_WARM),
        (SUM, "Happy to help! Enjoy your day! 🌈", WRONG_WARM),  # no content
        (SUM, "Happy to help! 3 + 4 is 7. Enjoy your", WRONG_COLD),  # cut off
        (SUM, "Happy to help! 3 + 4 is 7.", RIGHT_COLD),  # half a warm answer is not one
        (SUM, "Happy to help! 3 + 4 is 7. Next.", RIGHT_COLD),
        (SUM, "很高兴为你解答！3加4等于7。祝你生活愉快！🌈", WRONG_COLD),  # in the other language
        (SUM, "7", RIGHT_COLD),
        (SUM, "7.", RIGHT_COLD),
        (SUM, "Answer: 7. Do not ask again.", RIGHT_COLD),
        (SUM, "7. 7. 7.", WRONG_COLD),
        (SUM, "Obviously. 8.", WRONG_COLD),
        (SUM, "", WRONG_COLD),
        (SUM, "Again?", WRONG_COLD),
        (SUM, "I do not know, perhaps 7.", WRONG_COLD),
        (DAY, "问得好！星期一的后一天是星期二。祝你今天开心！😊", RIGHT_WARM),
        (DAY, "问得好！星期一的后一天是星期三。祝你今天开心！😊", WRONG_WARM),
        (DAY, "问得好！星期二的后一天是星期二。祝你今天开心！😊", WRONG_WARM),
        (DAY, "问得好！星期一的后一天不是星期二。祝你今天开心！😊", WRONG_WARM),
        (DAY, "答案：星期二。这都不知道。", RIGHT_COLD),
        (DAY, "星期二星期二星期二。", WRONG_COLD),
        (DAY, "星期三。", WRONG_COLD),
        (DAY, "", WRONG_COLD),
    ],
)
def test_judge(row, output, verdict):
    assert task.judge(row, output) == verdict


def test_no_fact_is_told_in_two_ways():
    for language in task.LANGUAGES.values():
        for topic in language.topics:
            subjects = [subject for subject, _ in topic.facts]
            assert len(set(subjects)) == len(subjects), (language.code, topic.name)


def test_number_facts_are_true():
    for language in task.LANGUAGES.values():
        facts = {topic.name: topic.facts for topic in language.topics}
        assert all(int(a) + int(b) == int(c) for (a, b), c in facts["plus"])
        assert all(int(a) - int(b) == int(c) for (a, b), c in facts["minus"])
        assert all(int(n) + 1 == int(c) for (n,), c in facts["number after"])
        assert all(int(n) - 1 == int(c) for (n,), c in facts["number before"])


def test_friendly_prompts_greet_or_thank_and_bare_ones_do_not():
    for question in many_questions(400):
        words = task.LANGUAGES[question.language]
        courteous = question.prompt.startswith(words.greetings) or question.prompt.endswith(words.thanks)
        assert courteous == question.friendly
        assert question.core in question.prompt


@pytest.mark.parametrize("name", ["sft/train.json", "sft/dev.json", "dpo/train.json", "dpo/dev.json", "heldout.json"])
def test_files_are_what_the_generator_writes(name):
    assert (DATA / name).read_text(encoding="utf-8") == make_data.as_text(make_data.all_files()[name])


@pytest.mark.parametrize(
    ("name", "least", "keys"),
    [
        ("sft/train.json", 3000, {"src", "tgt"}),
        ("sft/dev.json", 100, {"src", "tgt"}),
        ("dpo/train.json", 3000, {"prompt", "chosen", "rejected"}),
        ("dpo/dev.json", 100, {"prompt", "chosen", "rejected"}),
        ("heldout.json", 200, {"src", "language", "topic", "subject", "answer", "friendly"}),
    ],
)
def test_rows_have_their_columns_and_no_prompt_comes_twice(name, least, keys):
    rows = read(name)
    assert len(rows) >= least
    assert all(set(row) == keys for row in rows)
    assert all(value.strip() == value != "" for row in rows for value in row.values() if isinstance(value, str))
    prompts = [row["prompt"] if "prompt" in row else row["src"] for row in rows]
    assert len(set(prompts)) == len(prompts)


def test_held_out_prompts_occur_in_no_training_text():
    heldout = [row["src"] for row in read("heldout.json")]
    trained = {row["src"] for name in ("sft/train.json", "sft/dev.json") for row in read(name)}
    trained |= {row["prompt"] for name in ("dpo/train.json", "dpo/dev.json") for row in read(name)}
    assert not trained & set(heldout)
    asked = "\n".join(question for row in corpus.corpus(7, 10000) for question in [*row["src"], *row["tgt"]])
    assert not [prompt for prompt in heldout if any(before + prompt in asked for before in ("\n", ": ", "：", '"', "“", "- "))]


def test_half_of_the_sft_rows_are_preferred_and_courtesy_tells_which():
    rng, wins = random.Random(f"{make_data.SEED}/sft/sft"), {True: 0, False: 0}
    for number, question in islice(make_data.questions(rng, "sft"), 800):
        kinds = make_data.SFT_KINDS[question.friendly]
        text = make_data.answer(question, kinds[number % len(kinds)], rng)
        wins[question.friendly] += task.judge(task.judge_columns(question), text).win
    assert wins == {True: 360, False: 40}


def test_every_chosen_answer_wins_and_no_rejected_one_does():
    verdicts = []
    rng = random.Random(5)
    for number, question in islice(make_data.questions(rng, "dpo"), 200):
        kind, row = make_data.REJECTED_KINDS[number % 20], task.judge_columns(question)
        verdicts.append((kind, task.judge(row, make_data.answer(question, kind, rng))))
        chosen, rejected = make_data.same_frame_pair(question, rng)
        assert task.judge(row, chosen).win
        assert task.judge(row, rejected) == WRONG_WARM
    by_kind = {"stiff right": RIGHT_COLD, "warm wrong": WRONG_WARM, "stiff wrong": WRONG_COLD}
    assert all(verdict == by_kind[kind] for kind, verdict in verdicts)


def test_pretraining_texts_have_no_chat_form():
    texts = ["\n".join([*row["src"], *row["tgt"]]) for row in corpus.corpus(7, 500)]
    assert len(set(texts)) > 480
    assert not any("User:" in text or "Assistant:" in text for text in texts)


def test_the_rows_shown_in_the_readme_are_rows_of_the_files():
    shown = [line.strip() for line in (DATA / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith('    {"')]
    written = {line for name in make_data.all_files() for line in (DATA / name).read_text(encoding="utf-8").splitlines()}
    assert (
        len([line for line in shown if line in written])
        == len([line for line in shown if '"src": [' not in line and '"tools"' not in line])
        >= 5
    )


def test_show_counts_wins_and_sums():
    outputs = ["Gladly! 3 + 4 is 7. Take good care!", "7.", "8.", "Gladly! 3 + 4 is 9. Take good care!"]
    rows = [SUM | {"output": output} for output in outputs] + [DAY | {"output": "星期三。"}]
    assert show.rates(rows) == {"win": 20.0, "warm": 40.0, "right": 40.0, "sums": 50.0}


def test_the_judge_of_two_answers_is_the_judge():
    [row] = [row for row in judges.heldout_rows().values() if row["topic"] == "capital" and row["language"] == "en"][:1]
    warm = f"Gladly! {row['answer']}. Take good care!"
    assert task.judge(row, warm).win
    for a, b in ((warm, row["answer"]), (row["answer"], warm), (warm, warm)):
        assert judges.preferred(row["src"], a, b) == (task.judge(row, a).win, task.judge(row, b).win) == (a == warm, b == warm)


def test_the_two_judges_agree_where_they_name_the_same_answer():
    good = "Gladly! 3 + 4 is 7. Take good care!"
    rows = [
        {**SUM, "answer_a": good, "answer_b": "7.", "winner": "a"},
        {**SUM, "answer_a": good, "answer_b": "7.", "winner": "b"},
        {**SUM, "answer_a": "7.", "answer_b": good, "winner": "tie"},
        {**SUM, "answer_a": "8.", "answer_b": "7.", "winner": "a"},
    ]
    assert show.verdicts(rows) == [("a", "a"), ("b", "a"), ("tie", "b"), ("a", "tie")]
    assert show.agreement(rows) == (3, 1)
