"""`make house` counts right, on a package that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import House, facts

TREE = {
    "__init__.py": "from toy.low import Base\n",
    "low.py": '"""Two lines\n\nof docstring."""\n# a comment\n\nclass Base: ...\n_HIDDEN = 1\n',
    "left/__init__.py": '__all__ = ["Open"]\n',
    "left/report.py": "class Open: ...\nclass Job: ...\n",
    "right/__init__.py": "",
    "right/report.py": "from toy.left.report import Open, Job\nfrom toy.low import Base, _HIDDEN\n",
    "right/use.py": 'def use():\n    """Doc."""\n    from toy.left import report\n    return report\nclass Job: ...\n',
    "left/back.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy.right.use import use\n",
}


@pytest.fixture
def house(tmp_path: Path) -> House:
    for name, text in TREE.items():
        (tmp_path / "toy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "toy" / name).write_text(text)
    return House(tmp_path / "toy")


def test_lines_and_repeated_names(house: House) -> None:
    assert house.code_lines()["toy.low"] == 4 and house.docstring_lines() == 3
    assert house.repeated_basenames() == {"report.py": 2} and house.repeated_classes() == {"Job": 2}
    assert house.functions() == [(2, "toy.right.use:use")]
    assert house.once_imported() == ["toy.right.use"]


def test_names_that_cross_rooms_and_those_past_doors(house: House) -> None:
    left = {("left", "Open"), ("left", "Job"), ("left", "report")}
    assert house.crossing == left | {("right", "use"), ("low", "Base"), ("low", "_HIDDEN")}
    assert house.past_doors == {("left", "Job"), ("left", "report"), ("right", "use"), ("low", "_HIDDEN")}


def test_circles_count_imports_in_functions_and_for_types(house: House) -> None:
    assert house.room_circles() == [["left", "right"]]
    assert house.module_circles() == []
    assert dict(facts(house))["circles among rooms"] == "1: left – right"
