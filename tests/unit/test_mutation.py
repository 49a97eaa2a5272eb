"""The faults of scripts/mutation still stand in the code that they are put into."""

from pathlib import Path

from scripts.mutation.__main__ import misplaced
from scripts.mutation.faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]


def test_every_fault_has_its_place_and_its_tests():
    assert len({fault.what for fault in FAULTS}) == len(FAULTS) >= 40
    assert misplaced(ROOT, FAULTS) == []
    moved = Fault("moved", "data/order.py", "this text is not there", "", ("unit/test_nothing.py",))
    assert misplaced(ROOT, [moved]) == ["moved: its text stands 0 times in data/order.py", "moved: no tests/unit/test_nothing.py"]
