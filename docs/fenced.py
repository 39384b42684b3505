"""Examples in docstrings as blocks of code: Markdown takes their `>>>` for quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Fenced(griffe.Extension):
    """Puts every run of lines from a `>>>` on, up to the next empty line, between fences."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^>>> .*(?:\n.+)*", lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value, flags=re.MULTILINE
            )
