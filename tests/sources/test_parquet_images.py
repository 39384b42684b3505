"""Images in Parquet: Hugging Face's structs, plain binary, paths; a window at a time; pairs in one row."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.errors import DataError
from guardtrain.sources import EncodedImageSource, PairColumns, ParquetImagesSource, parquet_rows
from tests.sources.tiny import hub_image, png, shade, write_hub_parquet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, as `datasets` writes them, of images of shades 0 to 8."""
    for file, shades in (("train-00000-of-00002", range(5)), ("train-00001-of-00002", range(5, 9))):
        columns = {
            "image": [hub_image(k, f"{k}.png") for k in shades],
            "safety": [k % 2 for k in shades],
            "source": ["web"] * len(shades),
        }
        write_hub_parquet(tmp_path / "data" / f"{file}.parquet", columns, {"safety": ["safe", "unsafe"]})
    return tmp_path


def refused(path: str | Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        ParquetImagesSource(str(path), **settings).records()  # type: ignore[arg-type]
    return str(caught.value)


def test_structs_of_bytes_with_class_labels(folder: Path) -> None:
    source = ParquetImagesSource(str(folder), columns={"label": "safety"})
    records = source.records()
    assert isinstance(source, EncodedImageSource)
    assert records.ids[[0, 5]].tolist() == ["train-00000-of-00002/000000", "train-00001-of-00002/000000"]
    assert records.labels.tolist() == [k % 2 for k in range(9)]
    assert records.sources.tolist() == ["web"] * 9
    assert [source.encoded(i) for i in (8, 0, 5, 4, 4)] == [png(k) for k in (8, 0, 5, 4, 4)]
    assert [shade(source.image(i)) for i in range(9)] == list(range(9))
    assert "image" not in records.table.column_names[9:]
    chosen = ParquetImagesSource(str(folder), columns={"label": "safety"}, where={"safety": "unsafe"})
    assert [shade(chosen.image(i)) for i in range(4)] == [1, 3, 5, 7]
    assert chosen.records().ids[0] == "train-00000-of-00002/000001"


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_binary_in_a_column_of_any_name(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"jpg": pa.array([png(3), None], kind), "label": [0, 1]}), tmp_path / "x.parquet")
    source = ParquetImagesSource(str(tmp_path / "x.parquet"))
    assert shade(source.image(0)) == 3
    with pytest.raises(DataError, match=r"Record x/000001 of the Parquet images .* has no image \(column 'jpg'"):
        source.encoded(1)


def test_paths_start_from_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(5))
    columns = {"file": ["pictures/a.png"], "thumb": [png(1)], "label": [1]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    source = ParquetImagesSource(str(tmp_path), columns={"image": "file"})
    assert shade(source.image(0)) == 5
    assert source.records().column("file").tolist() == ["pictures/a.png"]
    pq.write_table(
        pa.table({"image": [{"bytes": None, "path": "pictures/a.png"}], "label": [1]}), tmp_path / "y.parquet"
    )
    assert shade(ParquetImagesSource(str(tmp_path / "y.parquet")).image(0)) == 5


@given(st.lists(st.integers(0, 39), min_size=1, max_size=30), st.integers(1, 15), st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_any_order_reads_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], group: int, window: int
) -> None:
    """Whatever the row groups and however few rows a window holds."""
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    contents = [bytes([k]) * 50 for k in range(40)]
    pq.write_table(pa.table({"image": contents, "label": [0] * 40}), path, row_group_size=group)
    kept = parquet_rows._WINDOW_BYTES
    parquet_rows._WINDOW_BYTES = window * 54
    try:
        source = ParquetImagesSource(str(path))
        assert [source.encoded(i) for i in order] == [contents[i] for i in order]
    finally:
        parquet_rows._WINDOW_BYTES = kept


def test_many_threads_read_what_one_reads(folder: Path) -> None:
    source = ParquetImagesSource(str(folder), columns={"label": "safety"})
    order = np.random.default_rng(0).integers(0, 9, 200).tolist()
    source.records()
    with ThreadPoolExecutor(8) as pool:
        assert [shade(image) for image in pool.map(source.image, order)] == order
    assert shade(pickle.loads(pickle.dumps(source)).image(7)) == 7


def test_what_is_held_does_not_grow_with_the_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one row group, as pandas writes them; a page of 1,024 rows is what the format makes one read."""
    monkeypatch.setattr(parquet_rows, "_WINDOW_BYTES", 1 << 18)
    path, peaks = tmp_path / "x.parquet", []
    image = np.random.default_rng(0).bytes(3000)
    for n in (2048, 8192):
        images = [i.to_bytes(4, "big") + image for i in range(n)]
        pq.write_table(pa.table({"image": images, "label": [0] * n}), path, use_dictionary=False, compression="none")
        assert pq.read_metadata(path).num_row_groups == 1
        source = ParquetImagesSource(str(path))
        source.records()
        before, most = pa.total_allocated_bytes(), 0
        for i in range(0, n, 7):
            assert source.encoded(i) == images[i]
            most = max(most, pa.total_allocated_bytes() - before)
        peaks.append(most)
    assert peaks[1] < 1.1 * peaks[0]


def test_urls(folder: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in (folder / "data").iterdir():
        memory.pipe(f"/parquet/{file.name}", file.read_bytes())
    source = ParquetImagesSource("memory://parquet", columns={"label": "safety"})
    assert [shade(source.image(i)) for i in (8, 1)] == [8, 1]


def test_the_content_key_follows_the_files(folder: Path) -> None:
    def key(**settings: object) -> str:
        columns = {"label": "safety"}
        return ParquetImagesSource(str(folder), columns=columns, **settings).content_key()  # type: ignore[arg-type]

    before = key()
    assert key(labels={"safe": 1, "unsafe": 0}) == before
    assert key(where={"safety": "safe"}) != before
    file = folder / "data" / "train-00000-of-00002.parquet"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert key() != before


def test_two_images_in_a_row_become_a_pair(tmp_path: Path) -> None:
    columns = {
        "good": [hub_image(1), hub_image(3), hub_image(5)],
        "bad": [hub_image(2), hub_image(4), hub_image(6)],
        "label_0": [1, 0, 1],
        "category": ["x", "y", "z"],
    }
    write_hub_parquet(tmp_path / "p.parquet", columns)
    spec = PairColumns("good", "bad", swapped={"label_0": 0}, edited="safe")
    source = ParquetImagesSource(str(tmp_path), pairs=spec)
    records = source.records()
    assert records.ids[:4].tolist() == ["p/000000/safe", "p/000000/unsafe", "p/000001/safe", "p/000001/unsafe"]
    assert records.pair_ids.tolist() == [f"p/00000{k}" for k in (0, 0, 1, 1, 2, 2)]
    assert [shade(source.image(i)) for i in range(6)] == [1, 2, 4, 3, 5, 6]
    assert records.labels.tolist() == [0, 1] * 3
    assert records.edited.tolist() == [True, False] * 3
    assert records.categories.tolist() == ["x", "x", "y", "y", "z", "z"]
    kept = ParquetImagesSource(str(tmp_path), pairs=spec, where={"category": ["x", "z"]})
    assert [shade(kept.image(i)) for i in range(4)] == [1, 2, 5, 6]
    assert "has no image column 'goood'" in refused(tmp_path, pairs=PairColumns("goood", "bad"))
    assert "pairs.swapped names 'label'" in refused(tmp_path, pairs=PairColumns("good", "bad", swapped={"label": 0}))


def test_errors_name_the_file_and_the_column(folder: Path, tmp_path: Path) -> None:
    assert "no Parquet files at" in refused(tmp_path / "none")
    assert "no image column 'picture'" in refused(folder, columns={"image": "picture"})
    assert "has no column 'label'" in refused(folder)
    write_hub_parquet(folder / "data" / "zz.parquet", {"image": [hub_image(1)], "label": [0]})
    assert "zz.parquet has other columns than" in refused(folder)
    (folder / "data" / "zz.parquet").write_bytes(b"PAR1 is all there is")
    assert "zz.parquet cannot be read as Parquet" in refused(folder)


def test_files_whose_columns_differ_in_type_and_in_the_order_of_classes(tmp_path: Path) -> None:
    """What nobody uses may be of any type, and each file says which name its own class numbers mean."""
    for file, names, caption in (("a", ["safe", "unsafe"], [None, None]), ("b", ["unsafe", "safe"], ["x", "y"])):
        columns = {"image": [hub_image(1), hub_image(2)], "label": [0, 1]}
        columns["caption"] = pa.array(caption, pa.float64() if file == "a" else pa.string())
        write_hub_parquet(tmp_path / f"{file}.parquet", columns, {"label": names})
    records = ParquetImagesSource(str(tmp_path)).records()
    assert records.labels.tolist() == [0, 1, 1, 0]
    assert records.column("caption").tolist() == [None, None, "x", "y"]


def test_files_that_hold_images_in_different_ways(tmp_path: Path) -> None:
    (tmp_path / "c.png").write_bytes(png(3))
    for file, image in (("a", [hub_image(1, "one.png")]), ("b", [png(2)]), ("c", ["c.png"])):
        pq.write_table(pa.table({"image": image, "label": [0]}), tmp_path / f"{file}.parquet")
    source = ParquetImagesSource(str(tmp_path), columns={"image": "image"})
    assert [shade(source.image(i)) for i in range(3)] == [1, 2, 3]
