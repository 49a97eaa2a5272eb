"""Argument files as text: JSON mistakes, missing files, PaddleNLP's own files; and what is shown of the result."""

import json
import re
from pathlib import Path

import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.fields import SECTIONS
from paddlealign.arguments.foreign import ALIASES, HINTS, ONLY
from paddlealign.arguments.parsing import known_fields
from paddlealign.arguments.show import arguments_dict, render
from paddlealign.errors import UserError
from tests.least_arguments import SFT, run

# ---- the file itself


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ('{\n  "seed": 1,\n}', 2, 12, "a comma before the closing }"),
        ('{"a": [1, 2,]}', 1, 12, "a comma before the closing ]"),
        ('{\n  // note\n  "seed": 1\n}', 2, 3, "a comment"),
        ('{\n  "seed": 1 # note\n}', 2, 13, "a comment"),
        ('{\n  "seed": 1, /* x */\n "a": 2}', 2, 14, "a comment"),
        ("{'seed': 1}", 1, 2, "a single quote"),
        ("{\"seed\": 'x'}", 1, 10, "a single quote"),
        ('{"do_train": True}', 1, 14, "In JSON write true"),
        ('{"seed": None}', 1, 10, "In JSON write null"),
        ('{"seed": 1\n "a": 2}', 2, 2, "a comma is missing before this"),
        ('{"seed": 1', 1, 11, "the file ends too early"),
        ('{"seed": 1} {}', 1, 13, "follows the closing bracket"),
        ("{“seed”: 1}", 1, 2, "a typographic quote"),
        ('{"output_dir": "C:\\data"}', 1, 19, "a backslash"),
        ('{"output_dir": "x\n}', 1, 16, "no closing double quote"),
        ("{seed: 1}", 1, 2, "a key in double quotes"),
        ("", 1, 1, "the file is empty"),
    ],
)
def test_json_mistakes_have_line_column_and_a_hint(tmp_path, text, line, column, said):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        parse("sft", [str(path)], {})
    assert f"{path}, line {line}, column {column}: " in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n"seed": 1,\n"seed": 2}', "the key seed stands there twice (lines 2 and 3)"),
        ('{"seed": 1, "seed": 2}', "the key seed stands there twice (line 1, twice)"),
        ("[1]", "one JSON object"),
        ('{"learning_rate": NaN}', "NaN is not a JSON value"),
        ("{}", "there is no key in it"),
    ],
)
def test_files_that_are_json_but_no_argument_file(tmp_path, text, said):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        parse("sft", [str(path)], {})
    assert said in str(caught.value)


def test_a_byte_order_mark_is_no_mistake_and_other_bytes_are(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(SFT), encoding="utf-8-sig")
    assert parse("sft", [str(path)], {}).training.output_dir == "o"
    path.write_bytes(b'{"output_dir": "\xff\xfe"}')
    with pytest.raises(UserError, match="not UTF-8"):
        parse("sft", [str(path)], {})


def test_missing_files_folders_and_nothing_at_all(tmp_path):
    (tmp_path / "sft_argument.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"Did you mean .*sft_argument\.json"):
        parse("sft", [str(tmp_path / "sft_arguments.json")], {})
    with pytest.raises(UserError, match="is a folder"):
        parse("sft", [str(tmp_path)], {})
    with pytest.raises(UserError, match=r"paddlealign.convert a.yaml -o args.json"):
        parse("predict", ["a.yaml"], {})
    with pytest.raises(UserError, match="needs arguments"):
        parse("sft", [], {})


# ---- the files that users bring

FILES = sorted((Path(__file__).parent / "argument_files").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_paddlenlp_files_start_as_they_are(path):
    """Only the paths in them are changed."""
    command = "dpo" if "dpo" in path.stem else "sft"
    arguments = parse(command, [str(path)], {})
    content = json.loads(path.read_text(encoding="utf-8"))
    fields = known_fields(command)
    changed = {key for key, source in arguments.sources.items() if source == "derived"}
    for key, value in content.items():
        name = ALIASES[key].key if key in ALIASES else key
        if name in fields and name not in changed:
            found = getattr(getattr(arguments, fields[name].section), name)
            assert found == ([value] if fields[name].kind is list else value)
        else:
            assert name in changed or name in ONLY or name in HINTS or any(name in note for note in arguments.notes) or value in (1, -1, "")


def test_the_files_were_found():
    assert len(FILES) >= 7


@pytest.mark.parametrize(
    ("command", "keys", "named"),
    [
        ("sft", {"lora": True, "pissa": True}, "pissa"),
        ("sft", {"lora": True, "weight_quantize_algo": "nf4"}, "weight_quantize_algo"),
        ("sft", {"prefix_tuning": True}, "prefix_tuning"),
        ("dpo", {"lora": True, "use_mora": True}, "use_mora"),
    ],
)
def test_variants_that_this_version_cannot_train_are_refused_by_key(command, keys, named, tmp_path):
    path = tmp_path / "a.json"
    content = json.loads((Path(__file__).parent / "argument_files" / f"llama_{command}.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **keys}), encoding="utf-8")
    with pytest.raises(UserError, match=f": {named}: "):
        parse(command, [str(path)], {})


@pytest.mark.parametrize("command", [name for name in SECTIONS if name != "plan"])  # a plan is given a training command's file
def test_our_own_files_start_without_a_note(command):
    path = Path(__file__).parents[2] / "scripts" / "llama" / f"{command}_argument.json"
    assert parse(command, [str(path)], {}).notes == ()


# ---- what is shown


def test_render_groups_and_puts_what_was_set_first(tmp_path):
    text = render(run(tmp_path, "sft", "--seed", "3", learning_rate=1e-4))
    training = text[text.index("  training") :]
    assert training.index("seed 3") < training.index("learning_rate 0.0001") < training.index("adam_beta1 0.9")
    assert max(len(line) for line in text.splitlines()) <= 118
    for key in known_fields("sft"):
        assert len(re.findall(rf"(?<![\w]){key} ", text)) == 1, key


def test_the_dictionary_for_run_json_is_complete_and_plain(tmp_path):
    content = arguments_dict(run(tmp_path, "dpo", "--seed", "3"))
    assert json.loads(json.dumps(content)) == content
    assert content["arguments"]["training"]["seed"] == {"value": 3, "source": "command line"}
    assert {key for section in content["arguments"].values() for key in section} == set(known_fields("dpo"))


@pytest.mark.parametrize("command", SECTIONS)
def test_help_shows_every_key_of_the_command_in_its_group(command, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(command, ["--help"], {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert set(re.findall(r"^  --(\w+)", text, re.M)) - {"help"} == set(known_fields(command)) | {
        f"no_{key}" for key, item in known_fields(command).items() if item.default is True
    }
    assert [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")][-len(SECTIONS[command]) :] == list(
        SECTIONS[command]
    )
