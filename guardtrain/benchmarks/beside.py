"""Published figures beside the user's, where the slice is the same: one category and source of UnsafeBench."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guardtrain.benchmarks.alignment import plain_name
from guardtrain.benchmarks.effectiveness import Evaluated
from guardtrain.benchmarks.measures import METRICS
from guardtrain.benchmarks.reference import papers, published_tables
from guardtrain.benchmarks.slices import ALL, Slice
from guardtrain.errors import ConfigError

# What the paper calls guards that can be imported, by the address of their files.
_SAME = {
    "https://github.com/LAION-AI/CLIP-based-NSFW-Detector": "NSFW_Detector",
    "https://github.com/YitingQu/unsafe-diffusion": "MultiHeaded",
    "https://huggingface.co/CompVis/stable-diffusion-safety-checker": "SD_Filter",
    "https://github.com/ml-research/Q16": "Q16",
}
# Papers with figures on the images of a data config, the data's own first.
_ON = {"unsafebench": ("unsafebench", "on_unsafebench")}
_PERCENT = "percent"
_WHOLE = (ALL, "test")  # columns of figures on all images of a test split


def check_reference(name: str | None) -> None:
    """Raises ConfigError for figures that there are not, or none of which is one of our metrics."""
    known = [paper for paper in papers() if any(True for _ in _of_paper(paper))]
    if name is not None and name not in known:
        raise ConfigError(f"reference is '{name}'; there are {', '.join(known)}, or null.")


def known_as(about: Mapping[str, Any]) -> str | None:
    """Return the UnsafeBench paper's name for this guard; None for a guard it does not have.

    Args:
        about: the guard's `config.json`.
    """
    if not about.get("imported"):
        return None
    return _SAME.get(str((about.get("training") or {}).get("url")))


def published_rows(evaluated: Evaluated, paper: str, names: Sequence[str | None], origin: str | None) -> list[Any]:
    """Rows of kind `published` for every published figure whose slice this data set has.

    A figure of a category is shown where the data have a category, and a source, of that name; one of all images where
    the data come from the paper's own config. `versus` is the user's guard that is the same as the paper's. The images
    need not be the same: nothing is computed from published figures.

    Args:
        evaluated: the user's figures.
        paper: of `guardtrain.benchmarks.reference`; `unsafebench` is also what others measured on its images.
        names: what the paper calls each of the guards, see `known_as`.
        origin: the data config that the data set comes from.
    """
    mine = {plain_name(name): evaluated.entrants[k].name for k, name in enumerate(names) if name}
    there = {(plain_name(part.category), plain_name(part.source)): part for part in evaluated.places if not part.scope}
    rows = []
    figures = (figure for one in _ON.get(paper, (paper,)) for figure in _of_paper(one))
    for about, guard, category, source, metric, value in figures:
        part = there.get((plain_name(category), plain_name(source)))
        if part is None or (category == ALL and origin not in _ON):
            continue
        place = evaluated.places[Slice(part.category, part.source, part.kind)]
        start = ("published", guard, mine.get(plain_name(guard)), evaluated.judged.name, ALL)
        columns = (part.category, part.source, part.kind)
        rows.append((*start, *columns, metric, value, None, None, None, *evaluated.whole_size(place), about))
    return rows


def _of_paper(paper: str) -> Iterator[tuple[str, str, str, str, str, float]]:
    """Source, guard, category, source of images, metric and value of every figure of one of our metrics."""
    for table in published_tables(paper).values():
        metric = table.get("metric")
        if metric not in METRICS:
            continue
        number = f"table {table['table']}" if table.get("table") else "no table number"
        second_hand = ", read in what others copied from it" if "read_from" in table else ""
        what = " ".join(table["what"].split())
        about = f"{table['source']} ({number}{second_hand}): {what}"
        scale = 100 if table.get("unit") == _PERCENT else 1
        for guard, columns in table["rows"].items():
            for column, value in columns.items():
                # a table of one category has sources as its columns, another one categories
                column = ALL if column in _WHOLE else str(column)
                category, source = (table["category"], column) if table.get("category") else (column, ALL)
                yield about, str(guard), str(category), source, metric, float(value) / scale
