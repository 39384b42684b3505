"""From rows to records: derived columns, constants, pairs over rows, and the settings that are refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.errors import ConfigError, DataError
from guardtrain.sources import Derived, PairColumns, ParquetImagesSource
from tests.sources.tiny import hub_image, shade, write_hub_parquet


@pytest.fixture
def path(tmp_path: Path) -> str:
    columns = {
        "image": [hub_image(k, f"{k}.png") for k in range(4)],
        "file": ["a_edited.png", "a.png", "b.png", "c.jpg"],
        "safety": ["safe", "unsafe", "unsafe", "safe"],
        "origin": ["web", None, "book", ""],
    }
    write_hub_parquet(tmp_path / "x.parquet", columns)
    return str(tmp_path / "x.parquet")


def refused(path: str, **settings: object) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        ParquetImagesSource(path, **settings).records()  # type: ignore[arg-type]
    return str(caught.value)


PAIRS = {"pair_id": Derived("file", r"(_edited)?\.\w+$", ""), "edited": Derived("file", "_edited")}
LABEL = {"label": "safety"}


def test_columns_are_derived_from_text(path: str) -> None:
    source = ParquetImagesSource(
        path, columns=LABEL, derive={**PAIRS, "id": Derived("image.path", r"\.png$", "")}, unpaired="keep"
    )
    records = source.records()
    assert records.ids.tolist() == ["0", "1", "2", "3"]
    assert records.pair_ids.tolist() == ["a", "a", None, None]
    assert records.edited.tolist() == [True, False, False, False]
    assert "image.path" not in records.table.column_names


def test_broken_pairs_are_an_error_or_left_out(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "exactly one safe and one unsafe" in refused(path, columns=LABEL, derive=PAIRS)
    source = ParquetImagesSource(path, columns=LABEL, derive=PAIRS, unpaired="drop")
    assert [shade(source.image(i)) for i in range(len(source.records()))] == [0, 1]
    assert "2 of 4 records are not one safe and one unsafe half of a pair; left out" in capsys.readouterr().err
    everyone = {"pair_id": Derived("file", ".*", "same")}
    assert "has no whole pair" in refused(path, columns=LABEL, derive=everyone, unpaired="drop")


@given(st.lists(st.tuples(st.sampled_from(["p", "q", "r", None, ""]), st.integers(0, 1)), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_dropping_leaves_whole_pairs_and_single_images(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str | None, int]]
) -> None:
    path = tmp_path_factory.mktemp("pairs") / "x.parquet"
    names, labels = [name for name, _ in rows], [label for _, label in rows]
    columns = {"image": pa.array([b"x"] * len(rows)), "pair_id": pa.array(names, pa.string()), "label": labels}
    pq.write_table(pa.table(columns), path)
    whole = {name for name in names if name and sorted(label for n, label in rows if n == name) == [0, 1]}
    single = [not name for name in names]
    try:
        dropped = ParquetImagesSource(str(path), unpaired="drop").records()
        assert dropped.ids.tolist() == [f"x/{i:06d}" for i, name in enumerate(names) if single[i] or name in whole]
    except DataError:
        assert not whole
        assert not any(single)
    kept = ParquetImagesSource(str(path), unpaired="keep").records()
    assert kept.pair_ids.tolist() == [name if name in whole else None for name in names]


def test_constants_and_the_source(path: str) -> None:
    source = ParquetImagesSource(
        path, columns={**LABEL, "source": "origin"}, constants={"category": "x"}, source="mine"
    )
    assert source.records().sources.tolist() == ["web", "mine", "book", "mine"]
    assert source.records().categories.tolist() == ["x"] * 4


def test_names_of_files_find_their_rows(tmp_path: Path) -> None:
    columns = {
        "image": [hub_image(1, "a.png"), hub_image(2, "b.png"), hub_image(3, "c.png"), hub_image(4, "d.png")],
        "one": ["x/a.png", "x/a.png", "x/d.png", "x/d.png"],
        "two": ["x/b.png", "x/b.png", "x/c.png", "x/c.png"],
        "pair": ["first", "first", "second", "second"],
    }
    write_hub_parquet(tmp_path / "x.parquet", columns)
    spec = PairColumns("one", "two", names_of="image")
    source = ParquetImagesSource(str(tmp_path), pairs=spec, columns={"pair_id": "pair"})
    assert source.records().pair_ids.tolist() == ["first", "first", "second", "second"]
    assert [shade(source.image(i)) for i in range(4)] == [1, 2, 4, 3]
    columns["two"][2:] = ["x/gone.png"] * 2
    write_hub_parquet(tmp_path / "x.parquet", columns)
    assert "1 of 2 pairs" in (message := refused(str(tmp_path), pairs=spec))
    assert "('x/d.png', 'x/gone.png')" in message
    write_hub_parquet(tmp_path / "x.parquet", {**columns, "image": [hub_image(k, "same.png") for k in range(4)]})
    assert "two rows hold a file named 'same.png'" in refused(str(tmp_path), pairs=spec)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"derive": {"labell": Derived("file", "x")}}, "derive names 'labell'"),
        ({"constants": {"colour": 1}}, "constants names 'colour'"),
        (
            {"derive": {"pair_id": Derived("fiel", "x", "")}},
            "no column 'fiel' (wanted for derive.pair_id). Did you mean 'file'",
        ),
        ({"derive": {"pair_id": Derived("file", "(", "")}}, "derive.pair_id: '(' → '' is not usable"),
        ({"derive": {"pair_id": Derived("file", "x", r"\2")}}, "is not usable"),
        ({"pairs": PairColumns("image", "image", edited="left")}, "pairs.edited is 'left'; allowed: safe, unsafe"),
        ({"pairs": PairColumns("image", "image"), "columns": LABEL}, "with `pairs` the two columns are the labels"),
    ],
)
def test_wrong_settings_are_named(path: str, settings: dict[str, object], message: str) -> None:
    assert message in refused(path, **{"columns": {}, **settings})
