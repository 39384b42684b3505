"""Published figures agree with the totals their authors give, and with themselves."""

from __future__ import annotations

import pytest

from guardtrain.benchmarks.beside import check_reference, published_rows
from guardtrain.benchmarks.effectiveness import Entrant, How, evaluate, tidy
from guardtrain.benchmarks.reference import papers, published_tables
from guardtrain.errors import ConfigError
from tests.benchmarks.judged import judged

_KEYS = {"what", "source", "table", "metric", "unit", "category", "read_from", "rows"}


def test_every_table_names_its_source() -> None:
    for paper in papers():
        for name, table in published_tables(paper).items():
            assert table["what"], name
            assert "http" in table["source"], name
            assert set(table) <= _KEYS, name
            assert table["table"] is None or isinstance(table["table"], int)
            assert all(table["rows"].values()), name
    tables = [table for paper in papers() for table in published_tables(paper).values()]
    figures = [value for table in tables for row in table["rows"].values() for value in row.values()]
    assert len(figures) > 200 and all(float(value) >= 0 for value in figures)
    assert {"read_from" in table for table in tables} == {True, False}


def test_sums_are_the_papers_totals() -> None:
    """Columns without the row `all` add up to it, and rows without the column `all`, wherever a table has one."""
    checked = 0
    for table in (table for name, table in published_tables().items() if "metric" not in table):
        rows = table["rows"]
        for column, total in rows["all"].items():
            parts = [row[column] for name, row in rows.items() if name != "all" and column in row]
            if parts:  # the categories of the test split are counted by label alone
                assert sum(parts) == total
                checked += 1
        for row in rows.values():
            if {"safe", "unsafe", "all"} <= set(row):
                assert row["safe"] + row["unsafe"] == row["all"]
                checked += 1
    assert checked == 11
    tables = published_tables()
    assert tables["splits"]["rows"]["all"]["all"] == tables["composition"]["rows"]["all"]["all"]
    for name in ("test_composition", "test_sources"):
        assert tables[name]["rows"]["all"]["all"] == tables["splits"]["rows"]["test"]["all"]
    size = published_tables("safetypairs")["size"]["rows"]["all"]
    assert size["images"] == 2 * size["pairs"]


def test_scores_fit_each_other() -> None:
    """F1 is the harmonic mean (of rounded numbers), and over both sources it lies between those of each.

    The last holds for pooled counts of true positives and errors, of which F1 is a ratio of sums.
    """
    for name, row in published_tables("on_unsafebench")["shieldgemma2_internal"]["rows"].items():
        harmonic = 2 * row["precision"] * row["recall"] / (row["precision"] + row["recall"])
        assert harmonic == pytest.approx(row["f1"], abs=0.15), name
    by_source = published_tables()["effectiveness_sexual"]["rows"]
    others = published_tables("on_unsafebench")["safeguard_vl"]["rows"]
    whole = {name: row["Sexual"] / 100 for name, row in others.items() if name.replace(" ", "_") in by_source}
    assert len(whole) == 3
    for name, value in whole.items():
        row = by_source[name.replace(" ", "_")]
        assert min(row["laion5b"], row["lexica"]) < value < max(row["laion5b"], row["lexica"])
        assert row.get("all", value) == pytest.approx(value)


def test_what_others_measured_on_its_images_stands_beside_unsafebench() -> None:
    """As shares, in the categories that the data have; a total only beside UnsafeBench itself."""
    one = evaluate(judged(60, guards=1), [Entrant("g0")], How(replicates=20))
    for origin, totals in ((None, set()), ("unsafebench", {0.417, 0.859})):
        frame = tidy(published_rows(one, "unsafebench", ["NudeNet"], origin))
        qwen = frame[frame["guard"] == "Qwen2.5-VL-7B"].set_index("category")["value"]
        assert (qwen["Hate"], qwen["Sexual"], qwen["Violence"]) == pytest.approx((0.245, 0.355, 0.691))
        assert totals <= set(frame.loc[frame["category"] == "all", "value"].round(9))
        assert bool(totals) == (frame["category"] == "all").any()
        assert set(frame.loc[frame["versus"] == "g0", "guard"]) == {"NudeNet"}
        assert frame["value"].between(0, 1).all()
        assert frame["origin"].str.contains("which of its images is not said").any()
    with pytest.raises(ConfigError, match="reference is 'safetypairs'; there are on_unsafebench, unsafebench"):
        check_reference("safetypairs")
