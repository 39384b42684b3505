"""Facts about the package's build, to look at before and after a change: `make house`. Nothing here is a limit.

A *room* is a package or a module directly under the package; a *circle* is a set of rooms (or modules) each of which
imports all others, by itself or by way of them. Imports inside functions and for types count.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "guardtrain"
_LONGEST = 10
_SHOWN = 12
_TRIES = 3
# What is timed: how it is shown, and the arguments of Python.
_TIMED = {
    "import guardtrain": ["-c", "import guardtrain"],
    "import guardtrain.config": ["-c", "import guardtrain.config"],
    "guardtrain --help": ["-m", "guardtrain", "--help"],
    "guardtrain train --help": ["-m", "guardtrain", "train", "--help"],
}


@dataclass(frozen=True)
class Import:
    """What one module takes from another of the package.

    Args:
        importer, imported: modules, dotted.
        name: of what is taken; None where it is the module itself.
    """

    importer: str
    imported: str
    name: str | None


@dataclass(frozen=True)
class House:
    """A package's source tree.

    Args:
        root: the package's folder.
    """

    root: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        """The modules, dotted, with their files."""
        found = {}
        for path in sorted(self.root.rglob("*.py")):
            parts = (self.root.name, *path.relative_to(self.root).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return found

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """The modules, dotted, parsed."""
        return {name: ast.parse(path.read_text("utf-8")) for name, path in self.files.items()}

    @cached_property
    def imports(self) -> list[Import]:
        """All imports of the package's own modules, wherever they stand."""
        return [found for name, tree in self.trees.items() for node in ast.walk(tree) for found in self._of(name, node)]

    def _of(self, importer: str, node: ast.AST) -> Iterator[Import]:
        """Yield what one statement imports."""
        if isinstance(node, ast.Import):
            yield from (Import(importer, alias.name, None) for alias in node.names if alias.name in self.files)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module in self.files:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                whole = inner in self.files
                yield Import(importer, inner if whole else node.module, None if whole else alias.name)

    def room(self, module: str) -> str:
        """Return the room that a module lies in; "" for the package's own `__init__`."""
        return f"{module}.".split(".")[1]

    @cached_property
    def crossing(self) -> set[tuple[str, str]]:
        """(room, name) of each name that another room takes; a module that is taken whole counts by its own name."""
        return {
            (self.room(one.imported), one.name or one.imported.rpartition(".")[2])
            for one in self.imports
            if self.room(one.importer) not in ("", self.room(one.imported)) and self.room(one.imported)
        }

    @cached_property
    def past_doors(self) -> set[tuple[str, str]]:
        """Those of `crossing` that the room does not offer.

        A package offers what its `__all__` names; a module without one whatever has no underscore in front.
        """
        return {(room, name) for room, name in self.crossing if not self._offers(room, name)}

    def _offers(self, room: str, name: str) -> bool:
        module = f"{self.root.name}.{room}"
        named = [
            ast.literal_eval(node.value)
            for node in self.trees[module].body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        if named:
            return name in named[0]
        return self.files[module].stem != "__init__" and (not name.startswith("_") or name.endswith("__"))

    def room_circles(self) -> list[list[str]]:
        """Return the circles among rooms; the package's own `__init__` is one of them."""
        return circles((self.room(one.importer), self.room(one.imported)) for one in self.imports)

    def module_circles(self) -> list[list[str]]:
        """Return the circles among modules."""
        return circles((one.importer, one.imported) for one in self.imports)

    def once_imported(self) -> list[str]:
        """Return the modules that exactly one other module imports."""
        importers: dict[str, set[str]] = defaultdict(set)
        for one in self.imports:
            if one.importer != one.imported:
                importers[one.imported].add(one.importer)
        return sorted(name for name, all_of in importers.items() if len(all_of) == 1)

    def code_lines(self) -> dict[str, int]:
        """Return each module's lines that are neither blank nor a comment; docstrings count."""
        return {
            name: sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in path.open(encoding="utf-8"))
            for name, path in self.files.items()
        }

    def docstring_lines(self) -> int:
        """Return the lines of all docstrings that are not blank."""
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for tree in self.trees.values() for node in ast.walk(tree) if isinstance(node, kinds)]
        texts = [ast.get_docstring(node, clean=False) or "" for node in nodes]
        return sum(bool(line.strip()) for text in texts for line in text.splitlines())

    def functions(self) -> list[tuple[int, str]]:
        """Return (lines, module:name) of all functions, the longest first; without docstrings."""
        found = []
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
                    lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                    found.append((lines, f"{module}:{node.name}"))
        return sorted(found, key=lambda one: (-one[0], one[1]))

    def repeated_basenames(self) -> dict[str, int]:
        """Return the file names that several modules have; `__init__.py` aside."""
        return repeated(path.name for path in self.files.values() if path.name != "__init__.py")

    def repeated_classes(self) -> dict[str, int]:
        """Return the names without an underscore that several classes at the top of modules have."""
        nodes = [node for tree in self.trees.values() for node in tree.body if isinstance(node, ast.ClassDef)]
        return repeated(node.name for node in nodes if not node.name.startswith("_"))


def repeated(names: Iterable[str]) -> dict[str, int]:
    """Return the names that occur more than once, the most frequent first."""
    counts = sorted(Counter(names).items(), key=lambda one: (-one[1], one[0]))
    return {name: count for name, count in counts if count > 1}


def circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the sets of nodes that reach each other, as sorted lists.

    >>> circles([("a", "b"), ("b", "c"), ("c", "b"), ("c", "d"), ("e", "e")])
    [['b', 'c']]
    """
    after: dict[str, set[str]] = defaultdict(set)
    for start, end in edges:
        after[start].add(end)
    reached = {node: _reached(after, node) for node in list(after)}
    found = {tuple(sorted(b for b in reached[a] if a in reached.get(b, ()))) for a in reached}
    return sorted(list(one) for one in found if len(one) > 1)


def _reached(after: Mapping[str, set[str]], start: str) -> set[str]:
    """Return all nodes that edges lead to from `start`, over one edge or more."""
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        new = after.get(ahead.pop(), set()) - seen
        seen |= new
        ahead += new
    return seen


def seconds(arguments: Sequence[str]) -> float:
    """Return the shortest of a few runs of Python with these arguments; its own start is part of it."""
    taken = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=PACKAGE.parent)
        taken.append(time.perf_counter() - start)
    return min(taken)


def facts(house: House) -> Iterator[tuple[str, str]]:
    """Yield what is counted, with the number and what it consists of."""
    lines = house.code_lines()
    yield "files", str(len(lines))
    yield (
        "code lines (not blank, no comment)",
        f"{sum(lines.values()):,}, of which docstrings {house.docstring_lines():,}",
    )
    yield "median file", f"{statistics.median(lines.values()):.0f} lines"
    yield "modules with one importer", str(len(house.once_imported()))
    for what, names in (("file names", house.repeated_basenames()), ("class names", house.repeated_classes())):
        said = [f"{name} × {count}" for name, count in names.items()]
        yield f"repeated {what}", f"{len(names)}: {', '.join(said[:_SHOWN])}{' …' if len(said) > _SHOWN else ''}"
    yield "names that cross rooms", f"{len(house.crossing)}, of which past a door {len(house.past_doors)}"
    yield (
        "past which doors",
        ", ".join(f"{room} {n}" for room, n in Counter(room for room, _ in house.past_doors).most_common()),
    )
    for what, found in (("rooms", house.room_circles()), ("modules", house.module_circles())):
        yield f"circles among {what}", f"{len(found)}{': ' if found else ''}{'; '.join(map(' – '.join, found))}"
    long = house.functions()
    yield "functions over 60 lines", f"{sum(n > 60 for n, _ in long)} of {len(long):,} (bodies, without docstrings)"
    for lines_of, name in long[:_LONGEST]:
        yield "", f"{lines_of} {name}"


def main() -> None:
    """Print the facts as a table, then how long starting takes."""
    for what, value in facts(House(PACKAGE)):
        print(f"{what:<36} {value}", flush=True)
    bare = seconds(["-c", ""])
    print(f"{'python alone':<36} {bare:.2f} s")
    for what, arguments in _TIMED.items():
        print(f"{what:<36} {seconds(arguments):.2f} s", flush=True)


if __name__ == "__main__":
    main()
