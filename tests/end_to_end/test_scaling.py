"""The commands that write docs/performance.md's memory and scaling tables, each on the least that it can measure."""

from pathlib import Path

import pytest

from scripts.marks import fill, split
from scripts.measure import memory_curves
from scripts.measure.memory import Case, Found
from scripts.scaling import cost, disk
from scripts.scaling.__main__ import PARTS, main
from scripts.scaling.steps import Timed

pytestmark = pytest.mark.pictures

MARKS = {name: f"scaling, {name}" for name in PARTS}


def empty_page(folder: Path, *names: str) -> Path:
    page = folder / "page.md"
    page.write_text("".join(f"before\n<!-- {name}: begin -->\nnothing yet\n<!-- {name}: end -->\n" for name in names))
    return page


def rows_of(page: Path, name: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in split(page, name)[1].splitlines() if line.startswith("|")]


def test_a_place_is_filled_and_the_others_stay(tmp_path: Path):
    page = empty_page(tmp_path, "one", "two")
    fill(page, "two", "a table")
    assert (split(page, "one")[1], split(page, "two")[1]) == ("nothing yet", "a table")
    assert page.read_text().count("before") == 2
    with pytest.raises(RuntimeError, match="three"):
        fill(page, "three", "")


def test_scaling_fills_the_parts_that_are_asked_for(tmp_path: Path):
    page = empty_page(tmp_path, *MARKS.values())
    assert main([str(page), "--quick", "--folder", str(tmp_path / "kept"), "--parts", "disk", "rows", "cost", "processes"]) == 0
    [[_, tokens, pairs, *figures]] = rows_of(page, MARKS["cost"])[2:]
    assert (tokens, pairs) == ("128", "1")
    median, least, most = (float(it.replace(",", "")) for it in figures[:3])
    assert 0 < least <= median <= most
    layouts = rows_of(page, MARKS["processes"])[2:]
    assert [row[0] for row in layouts] == list(cost.LAYOUTS)
    assert layouts[0][2:6] == ["1.00 x", "1.00 x", "1.00 x", "100%"]
    assert len(rows_of(page, MARKS["disk"])) == 2 + 2 * 6
    assert len(rows_of(page, MARKS["rows"])) == 2 + 2 + 2 + 3


def test_every_layout_has_a_core_for_each_thread():
    assert all(cores == threads * tensor * data for cores, threads, tensor, data in cost.LAYOUTS.values())


def test_a_layout_stands_beside_the_same_round():
    runs = [Timed(seconds, seconds, seconds, 0.01 * seconds) for seconds in (2.0, 1.0, 8.0)]
    assert cost.layout_cells([4.0, 3.0, 8.0], runs, 2) == ["2.00", "2.00 x", "1.00 x", "3.00 x", "100%", "8%"]


def test_ours_stands_beside_the_plain_way():
    lines = disk.disk_lines("it", 2_000_000_000, {"read": [1.0, 2.0, 4.0], "loaded": [4.0, 4.0, 5.0]})
    assert lines == ["| it | read | 1.00 | 0.50 | 2.00 |  |", "| it | loaded | 0.50 | 0.40 | 0.50 | 50% |"]


def found(batch: float, held: int = 100) -> Found:
    return Found(round(held + batch), round(held + batch), held + batch, "", 1000, held)


@pytest.mark.parametrize(("power", "wrong"), [(1.0, False), (0.8, False), (1.3, True), (2.0, True)])
def test_memory_that_grows_faster_than_the_tokens_is_told(power: float, wrong: bool):
    curve = memory_curves.curves(quick=False)[1]
    points = {at: found(1e6 * (at / 512) ** power) for at in curve.cases}
    assert bool(memory_curves.faults([(curve, points)])) == wrong
    # what Paddle does not count is seen as well
    hidden = {at: found(1e6 * at / 512)._replace(measured=round(100 + 1e6 * (at / 512) ** power)) for at in curve.cases}
    assert bool(memory_curves.faults([(curve, hidden)])) == wrong


@pytest.mark.parametrize("extra", [0, 1])
def test_memory_that_grows_with_the_vocabulary_is_told(extra: int):
    curve = memory_curves.curves(quick=False)[0]
    kept = 4 * 2048  # bytes of each word of the vocabulary for each token of the batch: what logits that are kept would take
    points = {at: found(100e6 + memory_curves.head_bytes(case) + extra * kept * at) for at, case in curve.cases.items()}
    assert bool(memory_curves.faults([(curve, points)])) == bool(extra)


def test_the_heads_share_is_a_chunk_and_one_of_its_weights():
    case = Case(256, 4, 8192, 2048, 1, 2, responses=2)
    assert memory_curves.head_bytes(case) == 4 * 1536 * 8192 + 4 * 256 * 8192
    assert memory_curves.head_bytes(case._replace(vocabulary=128000)) == 4 * (1 << 25) + 4 * 256 * 128000


def test_the_curves_are_measured_and_drawn(tmp_path: Path):
    page, picture = empty_page(tmp_path, "memory"), tmp_path / "memory.png"
    assert memory_curves.main([str(page), str(picture), "--quick"]) in (0, 1)  # what so little takes is not linear in anything
    assert [row[0] for row in rows_of(page, "memory")[2:4]] == ["8,192", "32,000"]
    assert picture.read_bytes().startswith(b"\x89PNG")
