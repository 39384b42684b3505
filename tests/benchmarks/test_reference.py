"""Published figures agree with the totals their authors give."""

from __future__ import annotations

from guardtrain.benchmarks.reference import published_tables


def test_every_table_names_its_source() -> None:
    for table in published_tables().values():
        assert table["what"]
        assert "http" in table["source"]
        assert "table" in table
        assert table["rows"]


def test_sums_are_the_papers_totals() -> None:
    tables = published_tables()
    rows = tables["composition"]["rows"]
    for column in ("safe", "unsafe", "all"):
        assert rows["laion5b"][column] + rows["lexica"][column] == rows["all"][column]
    for row in rows.values():
        assert row["safe"] + row["unsafe"] == row["all"]
    assert sum(row["all"] for row in tables["splits"]["rows"].values()) == rows["all"]["all"]
