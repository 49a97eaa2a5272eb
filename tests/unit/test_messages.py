"""What the commands say in Chinese: every message is translated, and a finished text finds its translation."""

import ast
import gettext
import io
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddlealign.errors import UserError
from paddlealign.messages.catalog import Catalog, load, words_of
from paddlealign.messages.language import CATALOG, check_language, language, translated
from paddlealign.messages.template import Place, fill, parse, variants, write
from scripts.messages.catalog_file import PO, read, updated
from scripts.messages.check import faults
from scripts.messages.english import ENGLISH
from scripts.messages.extract import LABELS, messages, templates
from scripts.messages.same import SAME

ROOT = Path(__file__).resolve().parents[2]
MEND = (
    "Run: python -m scripts.messages (it brings the catalog in step with the source). Then write each missing msgstr in "
    f"{PO.relative_to(ROOT)}, and run it once more, which compiles the catalog. What nobody reads as a message goes into "
    "scripts/messages/english.py."
)


# Messages that are left in English wherever they stand, since somebody's own text may well be one.
TOO_SHORT = frozenset({
    "{old} is {new}",
    "{low} to {high_included?|below }{high}",
    "{found}, as {known}",
    "{names} {names2?is|are}",
    "{source}, for {command}",
    "{name} {before} to {now}",
    "{minutes} min",
    "{key}[{index}] is {item}; {form}.",
    "{path}, or ",
    "no {key}.",
    " and {lora_path}",
})  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    return messages()


@pytest.fixture(scope="module")
def kept() -> dict[str, str]:
    return read(PO)


@pytest.fixture(scope="module")
def chinese() -> Catalog:
    return load(CATALOG)


@pytest.fixture
def in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLEALIGN_LANG", "zh")


def test_every_message_of_the_source_is_translated(found: dict[str, list[str]], kept: dict[str, str]):
    wrong = [f"{files[0]}: {text!r} {fault}" for text, files in found.items() for fault in faults(text, kept.get(text, ""))]
    assert not wrong, f"{len(wrong)} translations are missing or wrong:\n  " + "\n  ".join(wrong) + f"\n{MEND}"


def test_the_catalog_holds_nothing_else_and_is_compiled(found: dict[str, list[str]], kept: dict[str, str]):
    assert kept.keys() == found.keys(), f"{sorted(kept.keys() ^ found.keys())}\n{MEND}"
    with CATALOG.open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    assert [text for text, translation in kept.items() if compiled.gettext(text) != translation] == [], MEND


def test_what_stays_english_is_in_the_source(found: dict[str, list[str]]):
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "paddlealign").rglob("*.py"))
    said = {write(template) for tree in trees for template in templates(tree, all_errors=True)}
    assert sorted(ENGLISH - said) == []
    assert sorted(SAME - found.keys()) == []


def test_every_label_of_the_blocks_is_translated():
    sources = [(ROOT / f"paddlealign/recipes/{name}.py").read_text(encoding="utf-8") for name in ("start_block", "run_words")]
    entries = [re.search(r"def \w+_entries.*\n    return entries", source, re.S)[0] for source in sources]
    used = {f"  {label}" for text in entries for label in re.findall(r'\("([a-z ]+)", ', text)}
    assert len(used) > 12 and used <= set(LABELS), MEND


@pytest.mark.parametrize(
    ("text", "translation", "fault"),
    [
        ("{path}: not found.", "", "has no translation"),
        ("{path}: not found.", "找不到。", "its translation lacks path"),
        ("{path}: not found.", "{path}：找不到 {name}。", "its translation invents name"),
        ("{path}: not found.", "{path：找不到。", "is no name of a place"),
        ("{path}: not found.", "{path}: not found.", "is the same in Chinese"),
        ("{path}: not found, look", "{path}：找不到, 请查看", "half-width"),
        ("the {adapter?adapter|model} is there", "在这里", "its translation lacks adapter"),
        ("one\ntwo", "一二", "another number of lines"),
    ],
)
def test_a_wrong_translation_is_told(text: str, translation: str, fault: str):
    assert any(fault in told for told in faults(text, translation))


def test_a_form_of_a_word_may_be_left_out():
    assert list(faults("{count} process{many?es|} ended", "{count} 个进程结束了")) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_every_message_finds_its_translation_with_its_values(kept: dict[str, str], chinese: Catalog, seed: int):
    """Places are filled with words that no message has. A way of saying it without a word of its own cannot be found, nor need it."""
    letters = random.Random(seed)
    wrong = []
    for text, translation in kept.items():
        for variant in variants(parse(text)):
            if not words_of(variant):
                continue
            names = [part.name for part in variant.parts if isinstance(part, Place)]
            long = len(re.findall("[A-Za-z]", "".join(part for part in variant.parts if isinstance(part, str)))) > 6
            # A short one is known beside numbers only, if at all.
            values = {name: "".join(letters.choices("qxzäß0123456789/-.", k=7)).rstrip(".") + "q" if long else "7" for name in names}
            if text in TOO_SHORT:
                continue
            english, wanted = (fill(parse(it), values, variant.chosen) for it in (text, translation))
            if (seen := chinese.translate(english)) != wanted:
                wrong.append(f"{english!r} gives {seen!r}, not {wanted!r}: it is read as another message")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("value", ["a and b", "x is y", "pairs", "no such file", "10 to 20", "To load a and b online", "red_a and blue_b"])
def test_a_value_is_kept_in_every_place_of_every_message(kept: dict[str, str], chinese: Catalog, value: str):
    """Where a message is not known with such a value, it stays in English."""
    wrong = []
    for text, translation in kept.items():
        for variant in variants(parse(text)):
            names = {part.name for part in variant.parts if isinstance(part, Place)}
            values = dict.fromkeys(names, value)
            english, whole = (fill(parse(it), values, variant.chosen) for it in (text, translation))
            seen = chinese.translate(english)
            if seen.count(value) < min(english.count(value), whole.count(value)):
                wrong.append(f"{english!r} gives {seen!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        (
            "error: args.json, line 3: learning_rte: unknown key. Did you mean learning_rate?",
            "错误：args.json，第 3 行：learning_rte：未知的键。是否想写 learning_rate？",
        ),
        (
            "error: The argument file a.json does not exist. Check the path, or start from a file in scripts/llama/.",
            "错误：参数文件 a.json 不存在。请检查路径，或从 scripts/llama/ 中的文件开始。",
        ),
        (
            "error: 2 problems in the arguments:\n"
            "  args.json, line 6: max_steps: -2 is not allowed; allowed: -1 or more, where -1 and 0 leave it to num_train_epochs.\n"
            "  output_dir must be set: Folder for checkpoints, the run log and the final model. Required.",
            "错误：参数中有 2 个问题：\n"
            "  args.json，第 6 行：max_steps: -2 不可用；可用值：-1 或更大，其中 -1 和 0 表示由 num_train_epochs 决定。\n"
            "  必须设置 output_dir：存放检查点、运行日志和最终模型的目录。必填。",
        ),
        (
            "command line: batch_size: is a key of predict.py and evaluate.py rewards, not of sft_main.py. Remove it.",
            "命令行：batch_size: 是 predict.py 和 evaluate.py rewards 的键，不是 sft_main.py 的。请删去它。",
        ),
        (
            "data/d.jsonl:2:17: the file ends in the middle of this row (Unterminated string starting at): it was cut off. "
            "Get the file anew.",
            "data/d.jsonl:2:17: 文件在这一行中间就结束了 (字符串没有结束，起始于此)：它被截断了。请重新获取文件。",
        ),
        (
            "1 data row is wrong (of 3):\n  d.jsonl:4: no 'src' and no 'tgt'; found 'prompt', 'answer'.\nAllowed rows: x. Columns of other "
            "names are named by prompt_key, chosen_key and their kin. Mend or remove it, or set on_bad_row to skip: then bad rows are left "
            "out, counted, and kept in a file of refused rows.",
            "1 行数据有错（共 3 行）：\n  d.jsonl:4: 没有 'src' 和 'tgt'；现有 'prompt', 'answer'。\n可用的数据行：x。列名不同时用 "
            "prompt_key、chosen_key 等键指定。请改正或删除，或将 on_bad_row 设为 skip：这样有问题的数据行会被舍弃、计数，"
            "并保存在被拒数据行的文件中。",
        ),
        (
            "resume_from_checkpoint: out/checkpoint-4 is damaged: model.safetensors is cut short: 5 bytes are there, 9 were written. "
            "There is no whole one beside it; put a good copy back, or start again",
            "resume_from_checkpoint：out/checkpoint-4 已损坏：model.safetensors 不完整：现有 5 字节，而写入了 9 字节。"
            "旁边没有完整的检查点；请放回完好的副本，或重新启动",
        ),
        (
            "note: out/metrics.jsonl cannot be written: No space left on device; the run goes on, and its lines follow when they can",
            "说明：out/metrics.jsonl 无法写入：设备上没有剩余空间；运行继续，等到可以写入时再补上这些行",
        ),
        (
            "written: output/red and blue/report.html",
            "已写入：output/red and blue/report.html",
        ),
        (
            "  output/tea and milk; page.html in it shows the run while it goes on",
            "  output/tea and milk；运行期间可看其中的 page.html",
        ),
        (
            "one example (⟦ ⟧ stand around what is scored)",
            "一个样本 (⟦ ⟧ 标出的部分计分)",
        ),
        (
            "resumed from output/tea and milk/checkpoint-4: 4 of 10 steps done",
            "从 output/tea and milk/checkpoint-4 续训：10 步中已完成 4 步",
        ),
        (
            "mine/a and b.jsonl (A) and mine/c or d.jsonl (B): 12 prompts, in 3 of them the same answer twice",
            "mine/a and b.jsonl（A）和 mine/c or d.jsonl（B）：12 个提示，其中 3 个的两个回答相同",
        ),
        (
            "error: dataset_name_or_path [mine/black and white]: nothing is there",
            "错误：dataset_name_or_path [mine/black and white]: nothing is there",
        ),
        (
            "error: My folder: the model is whole. and more",
            "错误：My folder: the model is whole. and more",
        ),
        (
            "row_form pairs, output_dir a and b/10 to 20",
            "row_form pairs, output_dir a and b/10 to 20",
        ),
        (
            "note: To enable repo look-ups and downloads online, set x.",
            "说明：To enable repo look-ups and downloads online, set x.",
        ),
        (
            "done in 3 min 5 s: metrics.jsonl is in output/sft",
            "用时 3 分 5 秒，完成：metrics.jsonl 在 output/sft 中",
        ),
    ],
)
def test_real_messages_come_out_in_chinese_with_their_values(chinese: Catalog, english: str, expected: str):
    assert chinese.translate(english) == expected


@pytest.mark.parametrize("text", ["", "output/sft", "model", "step 10", "院子里有4只鸟", "What a nice question!", "a: b; c, d. e"])
def test_what_is_no_message_stays_as_it_is(chinese: Catalog, text: str):
    assert chinese.translate(text) == text


def test_a_users_own_text_is_kept(chinese: Catalog):
    shown = chinese.translate("check: the model is whole. The first prompt:\nnothing is shared")
    assert shown == "检查：模型完整。第一个提示：\nnothing is shared"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "de_DE.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW.UTF-8"}, "zh"),
        ({"LC_ALL": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh"),
        ({"PADDLEALIGN_LANG": "zh", "LC_ALL": "C"}, "zh"),
        ({"PADDLEALIGN_LANG": "en", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"PADDLEALIGN_LANG": "fr", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"PADDLEALIGN_LANG": "zh_CN"}, "zh"),
        ({"PADDLEALIGN_LANG": "zh-CN"}, "zh"),
        ({"PADDLEALIGN_LANG": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
    ],
)
def test_the_language_is_the_variables_or_the_locales(environment: dict[str, str], expected: str):
    assert language(environment) == expected


def test_another_language_is_refused():
    check_language({"PADDLEALIGN_LANG": ""})
    check_language({"PADDLEALIGN_LANG": "zh"})
    with pytest.raises(UserError, match="PADDLEALIGN_LANG is 'fr' in the environment; allowed: en, zh"):
        check_language({"PADDLEALIGN_LANG": "fr"})


@pytest.mark.usefixtures("in_chinese")
def test_english_where_the_stream_cannot_show_chinese():
    text = "note: nothing is shared"
    assert translated(text, io.TextIOWrapper(io.BytesIO(), encoding="utf-8")) == "说明：不分片"
    assert translated(text, io.TextIOWrapper(io.BytesIO(), encoding="gb18030")) == "说明：不分片"
    assert translated(text, io.TextIOWrapper(io.BytesIO(), encoding="ascii")) == text
    assert translated(text, io.StringIO()) == "说明：不分片"


@pytest.mark.usefixtures("in_chinese")
def test_a_fault_in_the_translation_shows_the_english(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paddlealign.messages.language.CATALOG", Path("nowhere.mo"))
    monkeypatch.setattr("paddlealign.messages.language._chinese", lambda: load(Path("nowhere.mo")))
    assert translated("note: nothing is shared", io.StringIO()) == "note: nothing is shared"


def test_nothing_is_loaded_in_english():
    script = (
        "import sys; from paddlealign.messages.language import translated; translated('note: x');"
        "assert not {'gettext', 'paddlealign.messages.catalog'} & sys.modules.keys()"
    )
    environment = {"PADDLEALIGN_LANG": "en", "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('f"{path}: no such file; {hint}"', ["{path}: no such file; {hint}"]),
        ('f"{settings.output_dir} holds " f"{len(rows):,} rows"', ["{output_dir} holds {rows} rows"]),
        ('f"{a.name} and {b.name} differ, {a.name}"', ["{name} and {name2} differ, {name}"]),
        ("f\"saved the {x if x else 'whole model'}\"", ["saved the {x?{x2}|whole model}"]),
        ("f\"{n} row{'s' if n > 1 else ''} left\"", ["{n} row{n2?s|} left"]),
        ('f"left out {n}" + (f" of {m} rows" if m else "")', ["left out {n}{m? of {m2} rows|}"]),
        ("f\"write {{key}} here, {'a|b c' if x else 'd'}\"", ["write {{key}} here, {x?a{|}b c|d}"]),
        ("f\"none of {', '.join(f'the {x}' for x in found)} is there\"", ["none of {x} is there", "the {x}"]),
        ('f"{a}{b} cannot be read"', ["{a} cannot be read"]),
        ('"learning_rate"', []),
        ('x = key("What it does, at length.", 1)', []),
        ('raise ValueError(f"{x} is not a shape")', []),
    ],
)
def test_a_text_of_the_source_is_a_template(source: str, expected: list[str]):
    assert [write(template) for template in templates(ast.parse(source))] == expected


def test_a_docstring_is_no_message():
    assert list(templates(ast.parse('def f():\n    """Says nothing to a user."""\n'))) == []


@given(st.recursive(st.text(alphabet="ab {}|?!\n", max_size=5), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=6))
def test_a_template_is_read_as_it_was_written(made: object):
    def text_of(part: object, name: str) -> str:
        if isinstance(part, str):
            return "".join({"{": "{{", "}": "{)}", "|": "{|}"}.get(letter, letter) for letter in part)
        return f"{{{name}?{'|'.join(text_of(one, f'{name}{number}') for number, one in enumerate(part))}}}"

    text = text_of(made, "c")
    template = parse(text)
    assert parse(write(template)) == template


@pytest.mark.parametrize("text", ["{", "}", "{a", "{a b}", "{a?b", "{a?b|c", "{}"])
def test_a_text_that_is_no_template_is_told(text: str):
    with pytest.raises(ValueError):
        parse(text)


def test_a_translation_stays_where_only_a_name_of_the_source_changed():
    before = {"{path}: {count} row{count2?s|} lost": "{path}：丢失 {count} 行{count2?|}", "gone now": "没有了"}
    now = {"{file}: {lost} row{many?s|} lost": ["a.py"], "a new one": ["b.py"]}
    assert updated(now, before) == {"{file}: {lost} row{many?s|} lost": "{file}：丢失 {lost} 行{many?|}", "a new one": ""}


def test_a_mistake_is_told_in_the_users_language(run_command: Callable[..., tuple[int, str, str]], tmp_path: Path):
    (tmp_path / "args.json").write_text('{\n  "learning_rte": 1\n}\n')
    words = ["sft_main.py", tmp_path / "args.json", "--output_dir", tmp_path / "out"]
    code, _, err = run_command(words, environment={"PADDLEALIGN_LANG": "zh"})
    assert code == 1 and "第 2 行" in err and "未知的键。是否想写 learning_rate？" in err
    code, _, err = run_command(words, environment={"PADDLEALIGN_LANG": "", "LC_ALL": "", "LC_MESSAGES": "", "LANG": "en_US.UTF-8"})
    assert code == 1 and "unknown key. Did you mean learning_rate?" in err
    code, _, err = run_command(words, environment={"PADDLEALIGN_LANG": "zh", "PYTHONIOENCODING": "ascii"})
    assert code == 1 and "unknown key. Did you mean learning_rate?" in err
    code, _, err = run_command(words, environment={"PADDLEALIGN_LANG": "fr"})
    assert code == 1 and err.startswith("error: PADDLEALIGN_LANG is 'fr' in the environment; allowed: en, zh.")
