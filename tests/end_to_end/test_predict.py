"""predict.py over a file of rows and as a chat, with a tiny random model and a tokenizer of single characters."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import paddlealign.recipes.predict as recipe
from paddlealign.recipes.chat import prompt_limit
from paddlealign.recipes.entry import main
from tests.small_runs import character_checkpoint, character_rows

ROOT = Path(__file__).parents[2]
GREEDY = ["--decode_strategy", "greedy_search"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return character_checkpoint(tmp_path / "model")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return character_rows(tmp_path / "rows.jsonl")


def predict(checkpoint: Path, data: Path, output: Path, *extra: str) -> int:
    common = ["--model_name_or_path", str(checkpoint), "--data_file", str(data), "--output_file", str(output)]
    return main("predict", [*common, "--max_length", "8", *extra])


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_through_the_command_line(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "predicted.jsonl"
    words = ["--model_name_or_path", checkpoint, "--data_file", data, "--output_file", output, "--max_length", "8", "--batch_size", "8"]
    command = [sys.executable, str(ROOT / "predict.py"), *map(str, words), *GREEDY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and f"done: 20 rows in {output}" in done.stdout
    written = lines(output)
    assert [{key: value for key, value in row.items() if key != "output"} for row in written] == lines(data)
    assert all(isinstance(row["output"], str) and "</s>" not in row["output"] for row in written)
    assert any(len(row["output"]) == 8 for row in written)


def test_batches_do_not_change_what_is_written(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    for name, extra in {"greedy": GREEDY, "sampled": ["--top_p", "0.9"]}.items():
        one, eight = tmp_path / f"{name}1.jsonl", tmp_path / f"{name}8.jsonl"
        assert predict(checkpoint, data, one, "--batch_size", "1", *extra) == 0
        assert predict(checkpoint, data, eight, "--batch_size", "8", *extra) == 0
        assert one.read_bytes() == eight.read_bytes()


STRATEGIES = {
    "sampled": ["--top_p", "0.95", "--num_return_sequences", "3"],
    "beams": ["--decode_strategy", "beam_search", "--num_beams", "4", "--num_return_sequences", "2"],
    "groups": [
        *("--decode_strategy", "beam_search", "--num_beams", "4", "--num_beam_groups", "2"),
        *("--diversity_rate", "0.8", "--num_return_sequences", "3"),
    ],
    "contrastive": ["--decode_strategy", "contrastive_search", "--top_k", "4"],
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_writes_its_answers_whatever_the_batch(checkpoint: Path, data: Path, tmp_path: Path, name: str) -> None:
    one, eight = tmp_path / "1.jsonl", tmp_path / "8.jsonl"
    assert predict(checkpoint, data, one, "--batch_size", "1", *STRATEGIES[name]) == 0
    assert predict(checkpoint, data, eight, "--batch_size", "8", *STRATEGIES[name]) == 0
    assert one.read_bytes() == eight.read_bytes()
    answers = [row["output"] for row in lines(one)]
    count = {"sampled": 3, "beams": 2, "groups": 3}.get(name)
    for answer in answers:
        assert isinstance(answer, str) if count is None else [type(text) for text in answer] == [str] * count
    whole = one.read_bytes()
    one.write_bytes(whole[: len(whole) // 2])  # a stopped run goes on, lists or not
    assert predict(checkpoint, data, one, "--batch_size", "8", *STRATEGIES[name]) == 0
    assert one.read_bytes() == whole


BEAMS = ["--decode_strategy", "beam_search", "--num_beams", "4"]
GROUPS = [*BEAMS, "--num_beam_groups", "2", "--diversity_rate", "0.8", "--num_return_sequences", "4"]
CONTRASTIVE = ["--decode_strategy", "contrastive_search", "--top_k", "4"]


@pytest.mark.parametrize(
    ("base", "extra"),
    [
        (GREEDY, ["--min_length", "8"]),
        (GREEDY, ["--stop_strings", '["a", "b", "c", "1", "2", "3"]']),
        (GREEDY, ["--repetition_penalty", "1.5"]),
        (GREEDY, ["--no_repeat_ngram_size", "1"]),
        ([], ["--num_return_sequences", "2"]),
        (BEAMS, ["--num_beams", "3"]),
        (BEAMS, ["--num_return_sequences", "2"]),
        (BEAMS, ["--length_penalty", "-4"]),
        ([*BEAMS, "--num_return_sequences", "4"], ["--early_stopping"]),
        (GROUPS, ["--num_beam_groups", "4"]),
        (GROUPS, ["--diversity_rate", "3"]),
        (CONTRASTIVE, ["--penalty_alpha", "0.9"]),
        (CONTRASTIVE, ["--top_k", "9"]),
    ],
)
def test_every_key_changes_the_text_and_is_kept_beside_it(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, base: list[str], extra: list[str]
) -> None:
    # Letters end texts, so that lengths have something to decide.
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, *range(3, 93, 7)]}))
    plain, changed = tmp_path / "plain.jsonl", tmp_path / "changed.jsonl"
    assert predict(checkpoint, data, plain, "--batch_size", "8", *base) == 0
    assert predict(checkpoint, data, changed, "--batch_size", "8", *base, *extra) == 0
    assert [row["output"] for row in lines(plain)] != [row["output"] for row in lines(changed)]
    capsys.readouterr()
    assert predict(checkpoint, data, plain, "--batch_size", "8", *base, *extra) == 1
    assert f"{extra[0][2:]} was" in capsys.readouterr().err


def test_an_answer_is_cut_before_a_stop_string(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    free, cut = tmp_path / "free.jsonl", tmp_path / "cut.jsonl"
    assert predict(checkpoint, data, free, *GREEDY) == 0
    whole = [row["output"] for row in lines(free)]
    stops = [next(text for text in whole if len(text) == 8)[3:6], "no such text", whole[1][1:3]]
    for batch_size in ("1", "8"):
        words = ["--stop_strings", json.dumps(stops), "--batch_size", batch_size]
        assert predict(checkpoint, data, cut, *GREEDY, *words) == 0
        expected = [text[: min(place for stop in stops if (place := f"{text}{stop}".find(stop)) >= 0)] for text in whole]
        assert [row["output"] for row in lines(cut)] == expected != whole
        cut.unlink()
    # One text that is no JSON list stands for itself.
    assert predict(checkpoint, data, cut, *GREEDY, "--stop_strings", stops[0]) == 0
    assert [row["output"] for row in lines(cut)] == [text.split(stops[0])[0] for text in whole]


def test_a_special_token_among_the_stop_strings_ends_an_answer(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    with_unknown, without = tmp_path / "with.jsonl", tmp_path / "without.jsonl"
    sampled = ["--max_length", "64", "--top_p", "1.0", "--temperature", "3"]
    assert predict(checkpoint, data, without, *sampled) == 0
    assert predict(checkpoint, data, with_unknown, *sampled, "--stop_strings", "<unk>") == 0
    pairs = [(row["output"], other["output"]) for row, other in zip(lines(with_unknown), lines(without), strict=True)]
    assert all(other.startswith(text) for text, other in pairs) and any(text != other for text, other in pairs)


def test_a_stopped_run_goes_on(checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert predict(checkpoint, data, whole, "--batch_size", "2") == 0
    assert predict(checkpoint, data, output, "--batch_size", "2") == 0
    content = whole.read_bytes()
    for kept in (0, 1, 40, len(content) // 2, len(content) - 1, len(content)):
        output.write_bytes(content[:kept])
        capsys.readouterr()
        assert predict(checkpoint, data, output, "--batch_size", "2") == 0
        assert output.read_bytes() == content
        rows = content[:kept].count(b"\n")
        assert rows == 0 or f"holds {rows} of 20 rows already" in capsys.readouterr().out


def test_an_interrupted_run_keeps_its_finished_windows(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert predict(checkpoint, data, whole) == 0
    calls = []
    real = recipe.generate

    def stopping(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(recipe, "generate", stopping)
    assert predict(checkpoint, data, output) == 130
    assert len(lines(output)) == recipe.WINDOW_BATCHES
    monkeypatch.setattr(recipe, "generate", real)
    assert predict(checkpoint, data, output) == 0
    assert output.read_bytes() == whole.read_bytes()


def test_outputs_of_other_rows_settings_or_programs_are_refused(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "out.jsonl"

    def refused(*extra: str) -> str:
        before = output.read_bytes()
        capsys.readouterr()
        assert predict(checkpoint, data, output, *extra) == 1
        assert output.read_bytes() == before
        return capsys.readouterr().err

    assert predict(checkpoint, data, output) == 0
    assert "top_p was 0.7, is 0.5" in refused("--top_p", "0.5")
    assert "decode_strategy was sampling, is greedy_search" in refused(*GREEDY)
    original, rows = data.read_text(encoding="utf-8"), data.read_text(encoding="utf-8").splitlines()
    data.write_text("\n".join([rows[1], rows[0], *rows[2:]]), encoding="utf-8")
    assert "line 1: holds another row" in refused()
    data.write_text("\n".join(rows[:5]), encoding="utf-8")
    assert "line 6: not an output for the rows" in refused()
    data.write_text(original, encoding="utf-8")
    weights = checkpoint / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    assert "weights was" in refused()
    (tmp_path / "out.jsonl.settings.json").unlink()
    assert "no out.jsonl.settings.json beside it" in refused()


def test_bad_rows_and_files_are_named(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, output = tmp_path / "bad.jsonl", tmp_path / "out.jsonl"
    cases = {
        '{"src": "a", "output": "b"}': 'bad.jsonl:1: the row has a key "output"',
        '{"text": "a"}': "bad.jsonl:1",
        json.dumps({"src": "a" * 200}): "leaves no room for an answer. Set src_length (now 1024) to 120 or less",
    }
    for row, words in cases.items():
        data.write_text(row + "\n")
        assert predict(checkpoint, data, output) == 1
        assert words in capsys.readouterr().err
    data.write_text(json.dumps({"src": "a" * 200}))
    assert predict(checkpoint, data, output, "--max_length", "1024") == 1
    assert "to 64 or less: that leaves 64 for the answer (max_length 1024)" in capsys.readouterr().err
    data.write_text('{"src": "a</s>b"}\n')  # no end of a turn, but text
    assert predict(checkpoint, data, tmp_path / "text.jsonl") == 0
    data.write_text('{"src": "a"}\n')
    assert predict(checkpoint, data, data) == 1
    assert "same file" in capsys.readouterr().err
    link = tmp_path / "link.jsonl"
    link.symlink_to(data)
    assert predict(checkpoint, data, link) == 1
    assert "same file" in capsys.readouterr().err
    assert data.read_text() == '{"src": "a"}\n' and not output.exists()


def test_prompts_that_were_cut_are_counted(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"src": "a" * length}) + "\n" for length in (3, 4, 5, 9)))  # and a BOS each
    assert predict(checkpoint, data, tmp_path / "out.jsonl", "--check", "--src_length", "5") == 0
    assert "2 of 4 prompts were longer than src_length 5" in capsys.readouterr().out
    assert predict(checkpoint, data, tmp_path / "out.jsonl", "--check", "--src_length", "10") == 0
    assert "longer than" not in capsys.readouterr().out


def test_a_row_with_tools_is_not_cut(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its start is where the tools stand."""
    template = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"
    (checkpoint / "chat_template.jinja").write_text(template)
    data, tool = tmp_path / "rows.jsonl", {"type": "function", "function": {"name": "weather"}}
    fixes = {12: "Set src_length to 20 or more (the model's positions allow 127 at most)", 150: "Shorten the row"}
    for length, words in fixes.items():
        data.write_text(json.dumps({"prompt": "a" * length, "tools": [tool]}))
        assert predict(checkpoint, data, tmp_path / "out.jsonl", "--check", "--src_length", "19") == 1
        error = capsys.readouterr().err
        assert "rows.jsonl:1: the prompt has " in error and "would lose its tools" in error and words in error
    data.write_text(json.dumps({"prompt": "a" * 12, "tools": [tool]}))
    assert predict(checkpoint, data, tmp_path / "out.jsonl", "--check", "--src_length", "20") == 0
    assert "<s>weatheraaa" in capsys.readouterr().out


def test_a_damaged_model_is_told_before_the_rows(checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert predict(checkpoint, data, tmp_path / "out.jsonl") == 1
    said = capsys.readouterr()
    assert "model.safetensors" in said.err and "20 rows" not in said.out
    weights.rename(checkpoint / "model-00001-of-00002.safetensors")
    assert predict(checkpoint, data, tmp_path / "out.jsonl") == 1
    said = capsys.readouterr()
    assert "model.safetensors.index.json is missing, which names the shards (model-00001-of-00002.safetensors ...)" in said.err
    assert "Fetch it." in said.err and "20 rows" not in said.out
    (checkpoint / "model-00001-of-00002.safetensors").rename(checkpoint / "pytorch_model-00001-of-00002.bin")
    assert predict(checkpoint, data, tmp_path / "out.jsonl", "--allow_pickle") == 1
    assert "pytorch_model.bin.index.json is missing, which names the shards (pytorch_model-00001-of-00002.bin" in capsys.readouterr().err


def test_check_generates_nothing(checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert predict(checkpoint, data, tmp_path / "out.jsonl", "--check") == 0
    assert "20 rows" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"model", "rows.jsonl"}


def test_a_chat_answers_with_beams(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"src": "hello"}\n')
    for extra in (BEAMS, CONTRASTIVE):
        assert predict(checkpoint, data, output, *extra) == 0
        monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/exit"))
        capsys.readouterr()
        assert main("predict", ["--model_name_or_path", str(checkpoint), "--interactive", "--max_length", "8", *extra]) == 0
        assert f"model> {lines(output)[0]['output']}\n" in capsys.readouterr().out
        output.unlink()


def test_chat(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    data, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"src": "hello"}\n{"messages": [{"role": "user", "content": "hello"}]}\n')
    assert predict(checkpoint, data, output, *GREEDY) == 0
    expected = lines(output)[0]["output"]
    typed = ["hello", "again", "/reset", "hello", "/help", "", "x" * 300, "/exit", "never read"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(typed)))
    capsys.readouterr()
    words = ["--model_name_or_path", str(checkpoint), "--interactive", "--max_length", "8", *GREEDY]
    assert main("predict", words) == 0
    said = capsys.readouterr().out
    answers = [part.split("\n")[0] for part in said.split("model> ")[1:]]
    assert len(answers) == 3
    # The first answer, and the one after /reset, are those to the bare message; the one in between has a history.
    assert answers[0] == answers[2] == expected != answers[1]
    assert "\nyou> hello\nmodel> " in said  # what was not typed at a terminal is shown
    assert "conversation is forgotten" in said and "/help is no command" in said and "this message has 301 tokens" in said


def test_a_long_chat_keeps_room_for_the_answer(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """128 positions: at most 64 are the prompt's where 1024 new tokens are asked for, and 108 where 20 are."""
    words = ["--model_name_or_path", str(checkpoint), "--interactive", *GREEDY, "--min_length"]
    for max_length, answered, cut in (("20", 20, False), ("1024", 64, True)):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(["x" * 63] * 4)))
        assert main("predict", [*words, max_length, "--max_length", max_length]) == 0
        said = capsys.readouterr().out
        answers = [part.split("\n")[0] for part in said.split("model> ")[1:]]
        assert len(answers) == 4 and all(len(answer) >= answered - 4 for answer in answers)  # special tokens are not shown
        assert said.count("the oldest turns no longer fit and are left out") == 1
        assert said.count("(the answer was cut: the model has 128 positions") == (4 if cut else 0)
    monkeypatch.setattr("sys.stdin", io.StringIO("x" * 64))
    assert main("predict", [*words, "8", "--max_length", "1024"]) == 0
    assert "this message has 65 tokens; 1 to 64 are possible" in capsys.readouterr().out


def test_the_room_of_a_prompt() -> None:
    assert [prompt_limit(*case) for case in ((1024, 8, 128), (1024, 1024, 128), (50, 8, 128), (9, 9, 2))] == [120, 64, 50, 1]


def test_ctrl_c_while_a_message_is_awaited_ends_the_chat(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    assert main("predict", ["--model_name_or_path", str(checkpoint), "--interactive"]) == 0
    assert capsys.readouterr().err == ""
