"""Damaged files: each is read, or refused in words that name it. No traceback, and no row without a count.

The cases are those of scripts/measure/fuzz_rows.py, which says what must hold for each and can run many more of them.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlealign.data.records import read_records
from paddlealign.errors import UserError
from scripts.measure import fuzz_rows

CORPUS = sorted((Path(__file__).parent / "damaged_files").iterdir())
CASES = 130  # for each of the 19 kinds of damage: 2,470 in all


@pytest.mark.parametrize("kind", fuzz_rows.DAMAGES)
def test_a_damaged_file_is_read_or_refused(kind: str, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("damaged")

    @settings(max_examples=CASES)
    @given(seed=st.integers(0, 2**40))
    def check(seed: int) -> None:
        fuzz_rows.check_case(fuzz_rows.make_case(kind, seed), folder)

    check()


@pytest.mark.parametrize("name", fuzz_rows.NAMES)
@settings(max_examples=30)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, allow_subnormal=False), st.integers(0, 3), st.binary(min_size=0, max_size=4)), min_size=2, max_size=4
    )
)
def test_damage_in_several_places(name: str, changes: list[tuple[float, int, bytes]], tmp_path_factory: pytest.TempPathFactory):
    data, _ = fuzz_rows.whole(name)
    for share, lost, put in changes:
        place = int(share * len(data))
        data = data[:place] + put + data[place + lost :]
    fuzz_rows.check_case(fuzz_rows.Case(name, data, "preference", fuzz_rows.ROWS), tmp_path_factory.mktemp("damaged"))


@pytest.mark.parametrize("path", CORPUS, ids=[path.name for path in CORPUS])
def test_files_that_were_damaged_by_hand(path: Path, tmp_path: Path):
    """Each file's name says how many of its rows are used and how many are bad: NAME.USED-BAD.ENDING."""
    name, counts, ending = path.name.split(".", 2)
    used, bad = map(int, counts.split("-"))
    case = fuzz_rows.Case(f"{name}.{ending}", path.read_bytes(), "sft", [])
    assert fuzz_rows.check_case(case, tmp_path) == fuzz_rows.Outcome(bad == 0, bad if used else None)
    if used:
        assert read_records([tmp_path / case.name], "sft", on_bad_row="skip")[1].used == used


@pytest.mark.parametrize("name", fuzz_rows.NAMES)
def test_the_whole_files_are_read(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(fuzz_rows.whole(name)[0])
    records, report = read_records([tmp_path / name], "preference")
    assert [(it.messages[0].content, it.responses, it.margin) for it in records] == [
        (row["prompt"], (row["chosen"], row["rejected"]), row["margin"]) for row in fuzz_rows.ROWS
    ]
    assert report.used == report.rows == len(fuzz_rows.ROWS)


def test_a_row_that_is_lost_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The check that all of these rest on."""
    case = next(case for seed in range(99) if (case := fuzz_rows.make_case("zeros", seed)).kept)
    fuzz_rows.check_case(case, tmp_path)
    read = fuzz_rows.read_rows

    def losing(*given: object, on_bad_row: str = "error"):
        found, report = read(*given, on_bad_row=on_bad_row)
        return found[:-1], report

    monkeypatch.setattr(fuzz_rows, "read_rows", losing)
    with pytest.raises((AssertionError, UserError)):
        fuzz_rows.check_case(case, tmp_path)
