"""A docstring starts with a verb or with what is returned, and is understood without its neighbours."""

from __future__ import annotations

import ast
import re

from tests.house import PACKAGE, House

OPENINGS = re.compile(r"(The same|That|Those|Such|Of|Its|It|What|As|Nothing)\b")


def test_no_docstring_opens_with_a_word_that_points_elsewhere() -> None:
    house, found = House(PACKAGE), []
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for module, tree in house.trees.items():
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text and OPENINGS.match(text):
                found.append(f"{house.files[module]}:{node.lineno}: {text.splitlines()[0]}")
    assert not found, "start these with a verb or with what is returned:\n" + "\n".join(found)
