"""Errors that a setting of the source would mend: they carry it, and whoever knows the command writes it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from guardtrain.errors import DataError
from guardtrain.grammar import setting_text

Setting = tuple[str, Any]  # the name of a source's setting and a value of it
Steps = Sequence[tuple[str, Sequence[Setting]]]
Line = Callable[[str, Any], str]  # a setting's name and value -> what to write on the command line


class Unclear(DataError):
    """A table's ambiguity, with settings that resolve it.

    Args:
        problem: what is wrong with which column.
        steps: what to do: a sentence, and the settings one of which does it.
    """

    def __init__(self, problem: str, steps: Steps) -> None:
        self.problem, self.steps = problem, tuple(steps)
        super().__init__(self.told(lambda name, value: f"{name}={setting_text(value, spaced=True)}"))

    def told(self, line: Line) -> str:
        """The whole message, each setting as `line` writes it, on a line of its own."""
        parts = [
            f"{sentence}:\n  " + "\nor\n  ".join(line(name, value) for name, value in settings)
            for sentence, settings in self.steps
        ]
        return f"{self.problem} " + "\n".join(parts)


@contextmanager
def settings_told(line: Line) -> Iterator[None]:
    """Inside, an error that a setting of a source would mend tells it as `line` writes it.

    Raises:
        DataError: that.
    """
    try:
        yield
    except Unclear as error:
        raise DataError(error.told(line)) from error
