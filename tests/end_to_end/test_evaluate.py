"""evaluate.py perplexity, judge and compare on tiny models whose tokens are characters: their files, their figures, what they refuse."""

import json
import math
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle
import pytest

import paddlealign.recipes.evaluate_compare as compare_recipe
import paddlealign.recipes.scoring as scoring_recipe
from evaluate import TASKS
from paddlealign.evaluation.winners import wilson_interval
from paddlealign.models.attention import packed_attention
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import read_tensors, write_tensors
from paddlealign.models.weights import load_model
from paddlealign.recipes.adapter import load_adapted
from paddlealign.recipes.entry import main, main_of_task
from paddlealign.training.run_log import read_metrics
from tests.small_runs import CHARACTERS, SPECIAL, character_checkpoint, character_rows

LENGTHS = ["--max_length", "100"]
# Texts of few characters, so that answers of many lengths are likely under no model and the judges have something to decide.
HELD_OUT = [{"src": f"{'ask ' * (1 + index % 3)}{index}?", "tgt": f"{'yes ' * (index % 4)}{index * index}"} for index in range(11)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A policy, a reference (the policy with other weights), and a reward model that was trained for a step from the policy."""
    folder = tmp_path_factory.mktemp("models")
    found = {name: character_checkpoint(folder / name) for name in ("policy", "reference")}
    weights = found["reference"] / "model.safetensors"
    rng = np.random.default_rng(0)
    tensors = {name: (array + 0.3 * rng.normal(size=array.shape)).astype(array.dtype) for name, array in read_tensors(weights).items()}
    write_tensors(weights, tensors, {"format": "pt"})
    pairs = write(folder / "pairs.jsonl", [{"prompt": row["src"], "chosen": row["tgt"], "rejected": "no"} for row in HELD_OUT])
    words = ["--model_name_or_path", found["policy"], "--train_dataset_path", pairs, "--output_dir", folder / "reward", "--do_train"]
    words += ["--max_steps", "1", "--learning_rate", "1e-2", "--save_strategy", "no", "--src_length", "50", *LENGTHS]
    assert main("reward", list(map(str, words))) == 0
    return {**found, "reward": folder / "reward"}


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def evaluate(task: str, *words: object) -> int:
    return main_of_task("evaluate.py", TASKS, [task, *map(str, words)])


def perplexity(model: Path, data: Path, output: Path, *words: object) -> list[dict]:
    assert evaluate("perplexity", "--model_name_or_path", model, "--data_file", data, "--output_file", output, *LENGTHS, *words) == 0
    return lines(output)


# ---- perplexity


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("held") / "rows.jsonl", HELD_OUT)


def oracle(folder: Path, row: dict) -> tuple[float, int]:
    """-log pi of a row's answer and end token in float64, from the logits of the row alone, unpacked and unpadded; and their number."""
    ids = {token: index for index, token in enumerate(SPECIAL + CHARACTERS)}
    prompt = [ids["<s>"], *(ids[character] for character in row["src"])]
    tokens = [*prompt, *(ids[character] for character in row["tgt"]), ids["</s>"]]
    model, count = load_model(folder, "float32"), len(tokens) - 1
    places = np.arange(count)[None]
    until = np.full((1, 1, count, 1), count, np.int32)
    with paddle.no_grad():
        hidden = model(paddle.to_tensor([tokens[:-1]]), paddle.to_tensor(places), packed_attention(until, places))
        logits = model.logits(hidden)[0].numpy().astype(np.float64)
    highest = logits.max(1, keepdims=True)
    logps = logits - highest - np.log(np.exp(logits - highest).sum(1, keepdims=True))
    scored = range(len(prompt) - 1, count)
    return -math.fsum(logps[place, tokens[place + 1]] for place in scored), len(scored)


def test_perplexity_is_that_of_the_oracle_and_of_training(
    models: dict[str, Path], held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    found = perplexity(models["policy"], held_out, tmp_path / "out.jsonl")
    said = capsys.readouterr().out
    assert [{key: line[key] for key in ("src", "tgt")} for line in found] == HELD_OUT
    wanted = [oracle(models["policy"], row) for row in HELD_OUT]
    assert [line["tokens"] for line in found] == [count for _, count in wanted]
    assert [line["nll"] for line in found] == pytest.approx([nll for nll, _ in wanted], rel=2e-6)
    tokens = sum(count for _, count in wanted)
    mean = math.fsum(nll for nll, _ in wanted) / tokens
    assert f"perplexity {math.exp(mean):.4f}: " in said and f"over {tokens} scored tokens of 11 rows" in said
    words = ["--model_name_or_path", models["policy"], "--dev_dataset_path", held_out, "--output_dir", tmp_path / "sft", "--do_eval"]
    assert main("sft", list(map(str, [*words, *LENGTHS, "--src_length", "50"]))) == 0
    [line] = read_metrics(tmp_path / "sft")
    [nats] = re.findall(r"^perplexity [\d.]+: ([\d.]+) nats", said, re.MULTILINE)
    assert float(nats) == pytest.approx(line["eval_loss"], abs=2e-6)
    assert f"; {line['eval_accuracy']:.1%} of the tokens are the first choice" in said


def test_neither_batch_nor_packing_nor_order_changes_it(models: dict[str, Path], held_out: Path, tmp_path: Path) -> None:
    base = [line["nll"] for line in perplexity(models["policy"], held_out, tmp_path / "base.jsonl")]
    for name, words in {"one": ["--batch_size", "1"], "all": ["--batch_size", "64", "--max_length", "400"]}.items():
        again = [line["nll"] for line in perplexity(models["policy"], held_out, tmp_path / f"{name}.jsonl", *words)]
        assert again == pytest.approx(base, rel=2e-6), name
    turned = write(tmp_path / "turned.jsonl", HELD_OUT[::-1])
    assert [line["nll"] for line in perplexity(models["policy"], turned, tmp_path / "back.jsonl")][::-1] == pytest.approx(base, rel=2e-6)


def test_an_adapter_counts(models: dict[str, Path], held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Perplexity with an adapter is what its training said last; and it is the adapter's model that is compared with the one before."""
    words = ["--model_name_or_path", models["policy"], "--train_dataset_path", held_out, "--dev_dataset_path", held_out, "--do_train"]
    words += [
        "--do_eval",
        "--lora",
        "--learning_rate",
        "0.03",
        "--max_steps",
        "3",
        "--save_strategy",
        "no",
        "--output_dir",
        tmp_path / "lora",
    ]
    assert main("sft", list(map(str, [*words, *LENGTHS, "--src_length", "50"]))) == 0
    trained = read_metrics(tmp_path / "lora")[-1]["eval_loss"]
    found = perplexity(models["policy"], held_out, tmp_path / "out.jsonl", "--lora_path", tmp_path / "lora")
    assert sum(line["nll"] for line in found) / sum(line["tokens"] for line in found) == pytest.approx(trained, abs=2e-6)
    keys = ["--model_name_or_path", models["policy"], "--lora_path", tmp_path / "lora", "--data_file", held_out, "--max_length", "8"]
    both = ["--output_file", tmp_path / "compared.jsonl", "--ways", "greedy_search", "--baseline_model_name_or_path", models["policy"]]
    assert evaluate("compare", *keys, *both, "--batch_size", "16") == 0
    assert main("predict", list(map(str, [*keys, "--output_file", tmp_path / "p.jsonl", "--decode_strategy", "greedy_search"]))) == 0
    compared = lines(tmp_path / "compared.jsonl")
    assert [line["finetuned"] for line in compared] == [[line["output"]] for line in lines(tmp_path / "p.jsonl")]
    assert any(line["finetuned"] != line["baseline"] for line in compared)


def test_every_form_of_held_out_rows(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Pairs count by their chosen answers, a conversation by all its answers or its last."""
    plain = [{"src": "a", "tgt": "bcd"}, {"src": "a", "tgt": "xyz 1"}]
    wanted = [line["nll"] for line in perplexity(models["policy"], write(tmp_path / "plain.jsonl", plain), tmp_path / "plain.out")]
    pair = {"prompt": "a", "chosen": ["bcd", "xyz 1"], "rejected": ["no", "never"]}
    sorted_pair = {"src": ["a"], "tgt": [], "response": ["no", "xyz 1"], "sort": [0, 1]}
    found = perplexity(models["policy"], write(tmp_path / "pairs.jsonl", [pair, sorted_pair]), tmp_path / "pairs.out")
    assert [line["nll"] for line in found] == pytest.approx([*wanted, wanted[1]], rel=2e-6)
    assert [line.get("chosen") for line in found] == ["bcd", "xyz 1", None] and found[0]["rejected"] == ["no", "never"]
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, ("q", "bcd", "a", "xyz"), strict=True)]
    talk = write(tmp_path / "talk.jsonl", [{"messages": turns}])
    [whole] = perplexity(models["policy"], talk, tmp_path / "whole.out")
    [last] = perplexity(models["policy"], talk, tmp_path / "last.out", "--score_all_turns", "false")
    assert (whole["tokens"], last["tokens"]) == (8, 4) and whole["nll"] > last["nll"] > 0
    capsys.readouterr()
    long = write(tmp_path / "long.jsonl", [*plain, {"src": "a" * 200, "tgt": "b"}])
    assert len(perplexity(models["policy"], long, tmp_path / "long.out")) == 2
    assert "left out 1: too long" in capsys.readouterr().out


def test_what_perplexity_refuses(models: dict[str, Path], held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(data: Path, *words: object) -> str:
        output = tmp_path / "new.jsonl"
        assert evaluate("perplexity", "--model_name_or_path", models["policy"], "--data_file", data, "--output_file", output, *words) == 1
        assert not output.exists()
        return capsys.readouterr().err

    assert 'bad.jsonl:1: the row has a key "nll" already' in refused(write(tmp_path / "bad.jsonl", [{**HELD_OUT[0], "nll": 1}]))
    assert "bad.jsonl:1: no 'tgt'" in refused(write(tmp_path / "bad.jsonl", [{"src": "a"}]))
    assert "this is a reward model" in refused(held_out, "--model_name_or_path", models["reward"])
    assert (
        refused(held_out, "--output_file", held_out) == f"error: output_file: {held_out} exists already. Name another one, or remove it.\n"
    )
    assert (
        evaluate("perplexity", "--model_name_or_path", models["policy"], "--data_file", held_out, "--check", "--output_file", "x.out") == 0
    )
    said = capsys.readouterr().out
    assert "⟦0</s>⟧" in said and "the model is whole and the rows can be scored" in said and not Path("x.out").exists()


# ---- judge


ANSWERS_A = ["yes yes", "no", "ok then", "same", "long " * 8, "7"]
ANSWERS_B = ["no", "yes yes yes", "ok", "same", "short", "7 7 7 7"]
PROMPTS = [f"question {index}?" for index in range(6)]


@pytest.fixture(scope="module")
def corners(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two files of answers to the same prompts, the second turned round."""
    folder = tmp_path_factory.mktemp("corners")
    sides = [[{"src": prompt, "output": text} for prompt, text in zip(PROMPTS, texts, strict=True)] for texts in (ANSWERS_A, ANSWERS_B)]
    sides[0][0]["number"] = 5
    return write(folder / "a.jsonl", sides[0]), write(folder / "b.jsonl", sides[1][::-1])


def judge(corners: tuple[Path, Path], output: Path, *words: object) -> list[dict]:
    assert evaluate("judge", "--answers_a", corners[0], "--answers_b", corners[1], "--output_file", output, *words) == 0
    return lines(output)


def test_the_log_ratio_is_the_implicit_reward(models: dict[str, Path], corners: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--policy_model_name_or_path", models["policy"], "--ref_model_name_or_path", models["reference"], *LENGTHS]
    found = judge(corners, tmp_path / "out.jsonl", *words, "--beta", "0.5")
    logps = {}
    for side, texts in (("a", ANSWERS_A), ("b", ANSWERS_B)):
        rows = write(tmp_path / f"{side}.jsonl", [{"src": prompt, "tgt": text} for prompt, text in zip(PROMPTS, texts, strict=True)])
        for name in ("policy", "reference"):
            logps[name, side] = [-line["nll"] for line in perplexity(models[name], rows, tmp_path / f"{name}.{side}")]
    for index, line in enumerate(found):
        scores = [0.5 * (logps["policy", side][index] - logps["reference", side][index]) for side in "ab"]
        assert [line["score_a"], line["score_b"]] == pytest.approx(scores, abs=2e-5)
        assert line["margin"] == pytest.approx(scores[0] - scores[1], abs=4e-5)
        assert (line["answer_a"], line["answer_b"], line["src"]) == (ANSWERS_A[index], ANSWERS_B[index], PROMPTS[index])
        assert line["winner"] == ("tie" if index == 3 else "a" if scores[0] > scores[1] else "b")
    assert found[0]["number"] == 5 and "output" not in found[0] and {line["winner"] for line in found} == {"a", "b", "tie"}
    doubled = judge(corners, tmp_path / "doubled.jsonl", *words, "--beta", "1", "--batch_size", "1")
    assert [line["margin"] for line in doubled] == pytest.approx([2 * line["margin"] for line in found], abs=1e-4)
    gap = sorted(abs(line["margin"]) for line in found)[3]
    tied = judge(corners, tmp_path / "tied.jsonl", *words, "--beta", "0.5", "--tie_margin", gap + 1e-4)
    assert sum(line["winner"] == "tie" for line in tied) == 4


def test_a_reward_model_judges_by_its_scores(models: dict[str, Path], corners: tuple[Path, Path], tmp_path: Path) -> None:
    found = judge(corners, tmp_path / "out.jsonl", "--reward_model_name_or_path", models["reward"], *LENGTHS)
    for side, file in zip("ab", corners, strict=True):
        words = ["--model_name_or_path", models["reward"], "--data_file", file, "--output_file", tmp_path / f"{side}.out", *LENGTHS]
        assert evaluate("rewards", *words) == 0
        wanted = {line["src"]: line["score"] for line in lines(tmp_path / f"{side}.out")}
        assert [line[f"score_{side}"] for line in found] == pytest.approx([wanted[line["src"]] for line in found], abs=3e-6)
    assert all(line["winner"] == ("a" if line["margin"] > 0 else "b" if line["margin"] < 0 else "tie") for line in found)
    assert found[3]["winner"] == "tie" and found[3]["margin"] == 0


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judges") / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\nimport numpy as np\n@dataclass\nclass Seen:\n    prompt: 'str'\n"
        "def longer(prompt, a, b):\n    return len(a) - len(b)\n"
        "def scores(prompt, a, b):\n    return np.float32(a.count('y')), b.count('y')\n"
        "def by_prompt(prompt, a, b):\n    return 1 if prompt.endswith(('0?', '1?', '2?')) else -1\n"
        "def fails(prompt, a, b):\n    return 1 if '2' not in prompt else {}[prompt]\n"
        "def flag(prompt, a, b):\n    return a > b\n"
        "def infinite(prompt, a, b):\n    return float('nan')\n"
        "def word(prompt, a, b):\n    return 'a'\n"
        "def system(prompt, a, b):\n    return (prompt[0]['role'] == 'system', prompt[1]['content'] != 'q')\n"
    )
    return path


def test_a_function_judges(judges: Path, corners: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = judge(corners, tmp_path / "longer.jsonl", "--judge", f"{judges}:longer")
    said = capsys.readouterr().out
    margins = [len(a) - len(b) for a, b in zip(ANSWERS_A, ANSWERS_B, strict=True)]
    assert [line["margin"] for line in found] == margins and "score_a" not in found[0]
    assert [line["winner"] for line in found] == ["a", "b", "a", "tie", "a", "b"]
    low, high = wilson_interval(3.5 / 6, 6)
    assert f"win rate of A, ties as half: 58.3% (95 % interval {low:.1%} to {high:.1%}, Wilson)" in said
    assert "A wins      3" in said and "tie         1" in said and "B wins      2" in said and "in 1 of them the same answer twice" in said
    assert f"mean length: A {np.mean([*map(len, ANSWERS_A)]):.1f}, B {np.mean([*map(len, ANSWERS_B)]):.1f} characters" in said
    assert "length-controlled win rate of A: not determined: length alone foretells every row: A wins where its answer is longer" in said
    found = judge(corners, tmp_path / "scores.jsonl", "--judge", f"{judges}:scores")
    assert [(line["score_a"], line["score_b"]) for line in found] == [
        (a.count("y"), b.count("y")) for a, b in zip(ANSWERS_A, ANSWERS_B, strict=True)
    ]
    capsys.readouterr()
    judge(corners, tmp_path / "prompt.jsonl", "--judge", f"{judges}:by_prompt")
    rate = capsys.readouterr().out.split("length-controlled win rate of A: ")[1]
    assert 0 < float(rate.split("%")[0]) < 100
    system = write(tmp_path / "system.jsonl", [{"system": "s", "src": "q", "output": "x"}])
    other = write(
        tmp_path / "other.jsonl", [{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "output": "y"}]
    )
    [line] = judge((system, other), tmp_path / "messages.jsonl", "--judge", f"{judges}:system")
    assert (line["score_a"], line["score_b"], line["winner"]) == (1, 0, "a")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "a.jsonl:3: judge {judges}:fails failed: KeyError: 'question 2?' ({judges}, line 13)."),
        ("flag", "a.jsonl:1: judge {judges}:flag returned True; a judge returns a number"),
        ("infinite", "a.jsonl:1: judge {judges}:infinite returned nan; the numbers must be finite."),
        ("word", "a.jsonl:1: judge {judges}:word returned 'a'; a judge returns"),
        ("none", "judge: {judges} has no function none."),
    ],
)
def test_a_functions_mistakes_are_told(
    judges: Path, corners: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture, name: str, said: str
) -> None:
    words = ["--answers_a", corners[0], "--answers_b", corners[1], "--output_file", tmp_path / "out.jsonl", "--judge", f"{judges}:{name}"]
    assert evaluate("judge", *words) == 1
    assert said.format(judges=judges) in capsys.readouterr().err and not (tmp_path / "out.jsonl").exists()


def test_what_judge_refuses(models: dict[str, Path], corners: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(a: Path, b: Path, *words: object) -> str:
        capsys.readouterr()
        assert evaluate("judge", "--answers_a", a, "--answers_b", b, "--output_file", tmp_path / "out.jsonl", *words) == 1
        return capsys.readouterr().err

    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef judge(:\n")
    assert f"judge: {broken} cannot be run: SyntaxError: " in (told := refused(*corners, "--judge", f"{broken}:judge"))
    assert f"({broken}, line 2)" in told
    broken.write_text("x = 1\nimport no_such_module\n")
    assert f"No module named 'no_such_module' ({broken}, line 2)." in refused(*corners, "--judge", f"{broken}:judge")
    judge_words = ["--judge", f"{broken}:judge"]
    short = write(tmp_path / "short.jsonl", lines(corners[1])[1:])
    assert f'a.jsonl:6: {short} has no answer to this prompt: "question 5?"' in refused(corners[0], short, *judge_words)
    several = write(tmp_path / "several.jsonl", [{"src": "q", "output": ["a", "b"]}])
    assert "several.jsonl:1: the row holds several answers" in refused(several, corners[1], *judge_words)
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    assert "pairs.jsonl:1: the row is a pair" in refused(pairs, corners[1], *judge_words)
    taken = write(tmp_path / "taken.jsonl", [{"src": "q", "output": "a", "winner": "a"}])
    assert 'taken.jsonl:1: the row has a key "winner" already' in refused(taken, corners[1], *judge_words)
    (tmp_path / "link.jsonl").symlink_to(corners[0])
    assert "the same file" in refused(corners[0], tmp_path / "link.jsonl", *judge_words)
    assert "this is a language model" in refused(*corners, "--reward_model_name_or_path", models["policy"])
    both = ["--policy_model_name_or_path", models["policy"], "--ref_model_name_or_path", models["reward"]]
    assert "ref_model_name_or_path: this is a reward model" in refused(*corners, *both)
    long = write(tmp_path / "long.jsonl", [{**row, "output": "z" * 200} for row in lines(corners[1])])
    model = ["--reward_model_name_or_path", models["reward"], *LENGTHS]
    assert "no prompt is left of which both answers can be scored" in refused(corners[0], long, *model)
    assert not (tmp_path / "out.jsonl").exists()
    write(long, [{**row, "output": "z" * 200} if index else row for index, row in enumerate(lines(corners[1]))])
    assert len(judge((corners[0], long), tmp_path / "one.jsonl", *model)) == 1
    assert "5 of 6 prompts are not judged" in capsys.readouterr().out


def test_check_judges_nothing(
    models: dict[str, Path], judges: Path, corners: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files = ["--answers_a", corners[0], "--answers_b", corners[1], "--output_file", tmp_path / "out.jsonl", "--check"]
    assert evaluate("judge", *files, "--judge", f"{judges}:fails") == 0
    assert "A: yes yes\nB: no\ncheck: the answers belong together" in capsys.readouterr().out
    assert evaluate("judge", *files, "--reward_model_name_or_path", models["reward"]) == 0
    assert "the models are whole and can score them" in capsys.readouterr().out and not (tmp_path / "out.jsonl").exists()


# ---- compare

WAYS = "greedy_search, sampling top_p=0.95 temperature=2, beam_search num_beams=3, group_beam, contrastive_search top_k=4"
DECODING = ["--num_beams", "4", "--num_beam_groups", "2", "--diversity_rate", "0.8", "--num_return_sequences", "2", "--max_length", "8"]
AS_PREDICT = {
    "greedy_search": ["--decode_strategy", "greedy_search"],
    "sampling top_p=0.95 temperature=2": ["--top_p", "0.95", "--temperature", "2", "--num_return_sequences", "2"],
    "beam_search num_beams=3": ["--decode_strategy", "beam_search", "--num_beams", "3", "--num_return_sequences", "2"],
    "group_beam": ["--decode_strategy", "beam_search", *DECODING],
    "contrastive_search top_k=4": ["--decode_strategy", "contrastive_search", "--top_k", "4"],
}


@pytest.fixture(scope="module")
def compare(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    """Runs the comparison of two models over six prompts; later words win."""
    rows = character_rows(tmp_path_factory.mktemp("prompts") / "rows.jsonl")
    rows.write_text("\n".join(rows.read_text(encoding="utf-8").splitlines()[:6]), encoding="utf-8")

    def start(output: Path, *words: object) -> int:
        keys = ["--model_name_or_path", models["policy"], "--baseline_model_name_or_path", models["reference"], "--data_file", rows]
        return evaluate("compare", *keys, "--output_file", output, "--ways", WAYS, *DECODING, "--batch_size", "8", *words)

    return start


@pytest.fixture(scope="module")
def compared(compare: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("compared") / "deep" / "out.jsonl"
    assert compare(output, "--show_rows", "0") == 0
    return output


def test_each_way_gives_what_predict_gives(compared: Path, models: dict[str, Path], tmp_path: Path) -> None:
    found = lines(compared)
    assert [line["way"] for line in found] == [*AS_PREDICT] * 6 and [*compared.parent.iterdir()] == [compared]
    prompts = write(
        tmp_path / "rows.jsonl", [{k: v for k, v in line.items() if k not in ("way", "baseline", "finetuned")} for line in found[::5]]
    )
    for side, model in (("baseline", "reference"), ("finetuned", "policy")):
        for way, words in AS_PREDICT.items():
            output = tmp_path / f"{side}.{way[:5]}"
            keys = ["--model_name_or_path", models[model], "--data_file", prompts, "--output_file", output, "--max_length", "8"]
            assert main("predict", [*map(str, keys), *words]) == 0
            answers = [row["output"] if isinstance(row["output"], list) else [row["output"]] for row in lines(output)]
            assert [line[side] for line in found if line["way"] == way] == answers, (side, way)
            assert len(answers[0]) == (1 if way.startswith(("greedy", "contrastive")) else 2)


def test_one_model_is_in_memory_at_a_time(
    compare: Callable[..., int], models: dict[str, Path], corners: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref] = []

    def load(*words: object, **keys: object) -> Decoder:
        assert all(model() is None for model in loaded), "the model before is still there"
        model = load_adapted(*words, **keys)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(scoring_recipe, "load_adapted", load)
    assert compare(tmp_path / "out.jsonl", "--ways", "greedy_search, sampling") == 0
    assert compare(tmp_path / "check.jsonl", "--check") == 0
    pair = ["--policy_model_name_or_path", models["policy"], "--ref_model_name_or_path", models["reference"], *LENGTHS]
    judge(corners, tmp_path / "judged.jsonl", *pair)
    assert len(loaded) == 6


def test_a_stopped_comparison_goes_on(
    compare: Callable[..., int], compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real, calls = compare_recipe.predict_rows, []

    def stopping(*words: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(*words)

    monkeypatch.setattr(compare_recipe, "predict_rows", stopping)
    output = tmp_path / "out.jsonl"
    assert compare(output) == 130
    assert "run the same command to go on" in capsys.readouterr().err and not output.exists()
    monkeypatch.setattr(compare_recipe, "predict_rows", real)
    assert compare(output, "--temperature", "0.5", "--ways", WAYS.replace(" temperature=2", "")) == 0  # another way beside it
    assert (tmp_path / "out.jsonl.parts").is_dir()
    output.unlink()
    capsys.readouterr()
    assert compare(output, "--max_length", "9") == 1
    assert "was made under other settings: max_length was 8, is 9" in capsys.readouterr().err
    assert compare(output) == 0
    assert output.read_bytes() == compared.read_bytes() and [*tmp_path.iterdir()] == [output]


def test_the_first_answers_are_shown_side_by_side(compare: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert compare(tmp_path / "out.jsonl", "--ways", "greedy_search, sampling", "--show_rows", "2", "--max_length", "4") == 0
    said = capsys.readouterr().out
    table = said[said.index("Answers") :]
    assert "baseline" in table and "finetuned" in table and table.count("greedy_search") == 2 and table.count("sampling") == 2
    assert "done: 12 rows" in said and "2 for each of 6 prompts" in said


def test_what_compare_refuses(compare: Callable[..., int], models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(*words: object) -> str:
        capsys.readouterr()
        assert compare(tmp_path / "out.jsonl", *words) == 1
        assert not (tmp_path / "out.jsonl").exists() and not (tmp_path / "out.jsonl.parts").exists()
        return capsys.readouterr().err

    assert "baseline_model_name_or_path: this is a reward model" in refused("--baseline_model_name_or_path", models["reward"])
    assert "model_name_or_path: this is a reward model" in refused("--model_name_or_path", models["reward"])
    for key in ("way", "baseline", "output"):
        taken = write(tmp_path / "taken.jsonl", [{"src": "a", key: "b"}])
        assert f'taken.jsonl:1: the row has a key "{key}" already' in refused("--data_file", taken)
