"""docs/from_*.md say of other tools' keys what the code does with them, and leave no key out that a dialect knows."""

from pathlib import Path

import pytest

from paddlealign.arguments.dialects import deepspeed_chat, dpo_paper, trinity, verl
from paddlealign.arguments.parsing import known_fields
from scripts import migration_examples as examples
from scripts.marks import split
from scripts.migration_page import PAGES, main, probed, short

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Switches that DeepSpeed-Chat's own commands do not have, or that its dialect reads without a line.
SILENT = {"do_train", "overwrite_output_dir", "actor_offload"}


def table_of(name: str) -> str:
    return split(DOCS / name, "table")[1]


def test_the_tables_are_what_the_code_says(capsys: pytest.CaptureFixture):
    assert main(DOCS, check=True) == 0, capsys.readouterr().out


def test_a_page_that_says_something_else_is_told(tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in PAGES:
        (tmp_path / name).write_text((DOCS / name).read_text(encoding="utf-8").replace("| `beta` |", "| `gamma` |"), encoding="utf-8")
    assert main(tmp_path, check=True) == 1
    assert "from_trl.md is not" not in (told := capsys.readouterr().out) and "from_paddlenlp.md is not what the code says" in told
    assert main(tmp_path, check=False) == 0 and main(tmp_path, check=True) == 0


@pytest.mark.parametrize(
    ("page", "keys"),
    [
        ("from_deepspeed_chat.md", deepspeed_chat.KEYS - SILENT),
        ("from_dpo_paper.md", {*dpo_paper.DEFAULTS, *dpo_paper.RULES}),
        ("from_trinity_rft.md", {*trinity.RULES, *trinity.IGNORED_SECTIONS, *verl.RULES, *verl.IGNORED_SECTIONS}),
    ],
)
def test_no_key_of_a_dialect_is_left_out(page: str, keys: set[str]):
    shown = table_of(page).replace("`--", "`")
    assert not {key for key in keys if short(key) not in shown}


def test_an_example_that_the_dialect_does_not_read_is_told():
    with pytest.raises(AssertionError, match="do_first_eva: the dialect says nothing"):
        probed(lambda entries, setting: dpo_paper.read_dpo_paper({k: v for k, v in entries.items() if k != "do_first_eva"}, setting),
               examples.DPO_PAPER_BASE, ("do_first_eva", True))  # fmt: skip


def test_what_trl_calls_otherwise_is_a_key_of_training():
    for keys, _ in examples.TRL_OTHER.values():
        assert all(any(key in known_fields(command) for command in ("sft", "reward", "dpo")) for key in keys)
    assert not examples.TRL_OTHER.keys() & set(examples.TRL_KEYS)
