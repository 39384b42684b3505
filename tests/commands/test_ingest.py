"""`guardtrain ingest` from somebody's table of scores to a curve that `plot` draws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.curves.test_published import long_table, written

COLUMNS = "published.columns={head: method, budget: n, seed: rep, id: image, label: y, score: p}"


def _command(path: str, *more: str) -> list[str]:
    return ["ingest", "published=table", f"published.path={path}", "published.name=theirs", COLUMNS, *more]


def test_a_table_becomes_a_curve_that_can_be_drawn(run, tmp_path: Path) -> None:
    path = written(long_table("seeds"), tmp_path / "s.csv")
    text = run(*_command(path))
    assert "AUROC on 'theirs' · 60 images · 4 seeds" in text
    assert "over seeds; every run scored the same images" in text
    assert re.search(r"^theirs: 60 labels, unsafe: 1 \(\d+\), safe: 0 \(\d+\)$", text, re.MULTILINE)
    shown = run("plot", "results=outputs/curve/theirs")
    assert "AUROC on 'theirs'" in shown
    assert Path("outputs/curve/theirs/curve.png").stat().st_size > 10_000


def test_folds_say_what_their_intervals_cover(run, tmp_path: Path) -> None:
    path = written(long_table("folds"), tmp_path / "s.csv")
    text = " ".join(run(*_command(path, "published.design=folds")).split())
    assert "AUROC on 'theirs' · 60 images · 4 folds" in text
    assert "all folds at once" in text
    assert "any two folds share 2/3 of the images they draw from" in text
    assert "outputs/curve/theirs/pooled/scores" in text
    shown = run("plot", "results=outputs/curve/theirs", "plot.formats=[svg]")
    assert "AUROC on 'theirs' · 2 methods · 60 images · 4 folds" in shown
    assert "test sets are fixed" not in shown
    assert "interval over folds (each trained and tested on other images" in " ".join(shown.split())
    assert "`guardtrain plot results=outputs/curve/theirs/pooled` draws all folds at once" in shown
    page = Path("outputs/curve/theirs/report.html").read_text()
    assert "test sets are fixed" not in page
    assert "<pre>guardtrain ingest published=table" in page
    assert "2 methods" in Path("outputs/curve/theirs/curve.svg").read_text()
    pooled = run("plot", "results=outputs/curve/theirs/pooled", "plot.formats=[svg]")
    assert "AUROC on 'theirs' · 2 methods · 60 images · all folds at once" in pooled
    assert Path("outputs/curve/theirs/pooled/roc.svg").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "design=folds"),
        (["published.design=none"], "allowed: folds, seeds"),
        (["published.path=nowhere.csv"], "no table at nowhere.csv"),
        (["+published.colour=red"], "no setting 'published.colour'"),
    ],
)
def test_what_is_wrong_is_named(run, tmp_path: Path, more: list[str], message: str) -> None:
    path = written(long_table("folds"), tmp_path / "s.csv")
    assert message in run(*_command(path, *more), code=2)


def test_smid_without_its_data_says_where_to_look(run) -> None:
    assert "give data_dir=PATH" in run("ingest", "data_dir=nowhere", code=2)
