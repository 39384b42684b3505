"""What one room of the package takes from another stands in that room's `__all__`, its door."""

from __future__ import annotations

from pathlib import Path

from tests.house import PACKAGE, House

# What is taken past doors today, `room: name` a line. The list may only get shorter.
EXCEPTIONS = Path(__file__).with_name("doors_to_be.txt")


def test_rooms_take_from_each_other_what_stands_in_doors() -> None:
    past = {f"{room}: {name}" for room, name in House(PACKAGE).past_doors}
    lines = EXCEPTIONS.read_text("utf-8").splitlines()
    assert lines == sorted(set(lines)), f"{EXCEPTIONS.name} is not sorted, or names something twice"
    new, gone = sorted(past - set(lines)), sorted(set(lines) - past)
    assert not new, f"put these into their rooms' __all__, or take what is there: {', '.join(new)}"
    assert not gone, f"nobody takes these past a door any more; delete their lines in {EXCEPTIONS.name}: {gone}"
