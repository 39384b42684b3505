"""Manifests: columns of other names, labels of other spellings, images where they are, and what goes wrong."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from guardtrain.config_checks import build
from guardtrain.errors import ConfigError, DataError
from guardtrain.sources import Derived, EncodedImageSource, ManifestSource
from guardtrain.sources.unclear import Unclear
from tests.sources.tiny import hub_image, shade, write_hub_parquet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of one colour each and a table that calls its columns otherwise."""
    (tmp_path / "pictures").mkdir()
    for name, colour in (("a", 10), ("b", 20), ("c", 30)):
        Image.new("RGB", (4, 2), (colour, colour, colour)).save(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "table.csv").write_text(
        "path,unsafe,topic\npictures/a.png,0,fire\npictures/b.png,1,fire\npictures/c.png,1,\n"
    )
    return tmp_path


COLUMNS = {"image": "path", "label": "unsafe", "category": "topic"}


def refused(source: ManifestSource) -> str:
    with pytest.raises(DataError) as caught:
        source.records()
    return str(caught.value)


def test_columns_are_renamed_and_the_image_is_the_id(folder: Path) -> None:
    source = ManifestSource(str(folder / "table.csv"), columns=COLUMNS)
    records = source.records()
    assert records.ids.tolist() == ["pictures/a.png", "pictures/b.png", "pictures/c.png"]
    assert records.labels.tolist() == [0, 1, 1]
    assert records.categories.tolist() == ["fire", "fire", None]
    assert isinstance(source, EncodedImageSource)
    assert [source.encoded(i) for i in range(3)] == [(folder / name).read_bytes() for name in records.ids]
    assert [source.image(i).getpixel((0, 0))[0] for i in range(3)] == [10, 20, 30]


def test_image_root_is_another_folder(folder: Path) -> None:
    (folder / "elsewhere.csv").write_text("image,label\na.png,safe\n")
    source = ManifestSource(str(folder / "elsewhere.csv"), image_root=str(folder / "pictures"))
    assert source.image(0).getpixel((0, 0)) == (10, 10, 10)


def test_a_table_and_its_images_behind_a_url() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    with memory.open("/set/table.csv", "w") as file:
        file.write("image,label\nx/a.png,unsafe\n")
    with memory.open("/set/x/a.png", "wb") as file:
        Image.new("L", (2, 2), 77).save(file, "PNG")
    source = ManifestSource("memory://set/table.csv")
    assert source.records().image_uris() == ["memory://set/x/a.png"]
    assert source.image(0).getpixel((0, 0)) == (77, 77, 77)
    assert source.encoded(0) == memory.cat("/set/x/a.png")
    assert source.content_key() != ManifestSource("memory://set/table.csv", image_root="memory://b").content_key()


@pytest.mark.parametrize(
    ("cells", "labels", "expected"),
    [
        (["Safe", "UNSAFE"], {}, [0, 1]),
        (["True", "false"], {}, [1, 0]),
        ([1.0, 0.0], {}, [1, 0]),
        ([True, False], {}, [1, 0]),
        (["nsfw", "Neutral"], {"nsfw": 1, "neutral": 0}, [1, 0]),
        ([3, 7], {"3": 1, "7": 0}, [1, 0]),
        ([0, 1], {"0": 1, "1": 0}, [1, 0]),
    ],
)
def test_labels_are_read(tmp_path: Path, cells: list[object], labels: dict[str, int], expected: list[int]) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "label": cells}), tmp_path / "t.parquet")
    assert ManifestSource(str(tmp_path / "t.parquet"), labels=labels).records().labels.tolist() == expected


def test_unmapped_labels_are_listed_with_their_number(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,label\na,safe\nb,maybe\nc,maybe\nd,\n")
    message = refused(ManifestSource(str(tmp_path / "t.csv")))
    assert "'safe' (1), 'maybe' (2), (empty) (1)" in message
    assert message.endswith(
        "Say which are safe (0) and which unsafe (1):\n  labels={safe: 0, maybe: 0}\nor\n  labels={safe: 0, maybe: 1}\n"
        "Leave rows without a label out:\n  where={label: [safe, maybe]}"
    )


def test_labels_map_to_0_and_1_only(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,label\na,safe\n")
    assert "{'safe': 2}" in refused(ManifestSource(str(tmp_path / "t.csv"), labels={"safe": 2}))


def test_where_chooses_rows_before_labels_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,label,origin\na,safe,web\nb,maybe,web\nc,unsafe,book\n")
    path = str(tmp_path / "t.csv")
    assert ManifestSource(path, where={"label": ["safe", "unsafe"]}).records().ids.tolist() == ["a", "c"]
    assert ManifestSource(path, columns={"source": "origin"}, where={"source": "book"}).records().ids.tolist() == ["c"]
    assert "where names 'orign', which" in refused(ManifestSource(path, where={"orign": "web"}))
    assert "Did you mean 'origin'?" in refused(ManifestSource(path, where={"orign": "web"}))
    message = refused(ManifestSource(path, where={"origin": "film"}))
    assert "is 'film' in no row. It holds 'web' (2), 'book' (1)." in message


def test_split_chooses_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,label,split\na,safe,train\nb,unsafe,test\n")
    path = str(tmp_path / "t.csv")
    assert ManifestSource(path, split="test").records().ids.tolist() == ["b"]
    assert "splits found: test, train" in refused(ManifestSource(path, split="val"))
    assert "must be one of train, val, test; it is 'dev'" in refused(ManifestSource(path, split="dev"))


def test_source_fills_what_is_empty(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,label,source\na,safe,web\nb,unsafe,\n")
    assert ManifestSource(str(tmp_path / "t.csv"), source="mine").records().sources.tolist() == ["web", "mine"]


def test_edited_is_read_in_words(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,label,edited\na,safe,Yes\nb,unsafe,\nc,safe,0\n")
    assert ManifestSource(str(tmp_path / "t.csv")).records().edited.tolist() == [True, False, False]
    (tmp_path / "u.csv").write_text("id,label,edited\na,safe,perhaps\n")
    assert "'edited'" in refused(ManifestSource(str(tmp_path / "u.csv")))


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfid,label\na,safe\n")
    assert ManifestSource(str(tmp_path / "t.csv")).records().ids.tolist() == ["a"]


def test_jsonl_ids_of_mixed_type_are_text(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"id": 1, "label": 0}\n\n{"id": "b", "label": 1, "category": "x"}\n')
    records = ManifestSource(str(tmp_path / "t.jsonl")).records()
    assert records.ids.tolist() == ["1", "b"]
    assert records.categories.tolist() == [None, "x"]


def test_errors_name_the_file(tmp_path: Path) -> None:
    assert f"no table at {tmp_path}/none.csv" in refused(ManifestSource(str(tmp_path / "none.csv")))
    assert "'.xlsx'; a table is one of .csv, .tsv, .jsonl, .ndjson, .json, .parquet" in refused(
        ManifestSource("t.xlsx")
    )
    (tmp_path / "t.jsonl").write_text('{"id": 1}\n{"id": \n')
    assert "line 2 is not JSON" in refused(ManifestSource(str(tmp_path / "t.jsonl")))
    (tmp_path / "t.parquet").write_text("no parquet")
    assert "cannot be read as parquet" in refused(ManifestSource(str(tmp_path / "t.parquet")))
    (tmp_path / "t.csv").write_text("")
    assert "it is empty" in refused(ManifestSource(str(tmp_path / "t.csv")))
    (tmp_path / "d.csv").write_text("id,label,id\na,safe,b\n")
    assert "the header repeats id" in refused(ManifestSource(str(tmp_path / "d.csv")))


def test_a_missing_column_comes_with_the_near_ones(folder: Path) -> None:
    message = refused(ManifestSource(str(folder / "table.csv"), columns={"image": "pth", "label": "unsafe"}))
    assert "no column 'pth' (wanted for image)" in message
    assert "Did you mean 'path'?" in message
    assert "It has: path, unsafe, topic" in message


def test_an_unknown_record_column_comes_with_the_near_ones(folder: Path) -> None:
    message = refused(ManifestSource(str(folder / "table.csv"), columns={"lable": "unsafe"}))
    assert "'lable', which is no column of the record table" in message
    assert "Did you mean 'label'?" in message


def test_a_table_without_id_and_image_says_how_to_name_them(folder: Path) -> None:
    assert "columns={image: path, label: unsafe}" in refused(ManifestSource(str(folder / "table.csv")))


def test_missing_images_are_counted_only_when_images_are_needed(folder: Path) -> None:
    (folder / "pictures" / "b.png").unlink()
    source = ManifestSource(str(folder / "table.csv"), columns=COLUMNS)
    assert len(source.records()) == 3
    with pytest.raises(DataError) as caught:
        source.content_key()
    assert "1 of 3 images of the manifest" in str(caught.value)
    assert f"{folder}/pictures/b.png" in str(caught.value)
    assert f"Relative paths start from {folder}" in str(caught.value)


def mended(source: ManifestSource) -> ManifestSource:
    """The source with the first setting that its refusal of missing images proposes."""
    with pytest.raises(Unclear) as caught:
        source.content_key()
    ((_, ((name, value), *_)),) = caught.value.steps
    node = {"_target_": "guardtrain.sources.ManifestSource", **asdict(source), name: value}
    return build(node, "source")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "written",
    [
        "a.png",  # in pictures/, where the table is not
        "/elsewhere/pictures/{}.png",
        "/elsewhere/of another/{}.png",
        "C:\\My Files\\pictures\\{}.png",
        "C:\\My Files\\{}.png",
    ],
)
def test_images_that_are_elsewhere_come_with_the_setting_that_finds_them(folder: Path, written: str) -> None:
    path = written if "{" in written else "{}.png"
    rows = [f"{path.format(name)},{k % 2}" for k, name in enumerate("abc")]
    (folder / "t.csv").write_text("\n".join(["file,label", *rows]))
    source = mended(ManifestSource(str(folder / "t.csv"), columns={"image": "file"}))
    assert [source.image(i).getpixel((0, 0))[0] for i in range(3)] == [10, 20, 30]
    assert source.content_key() == ManifestSource(str(folder / "table.csv"), columns=COLUMNS).content_key()


def test_absolute_paths_that_are_nowhere_are_not_sent_to_image_root(folder: Path) -> None:
    (folder / "t.csv").write_text("image,label\n/gone/x/1.png,1\n/gone/x/y/2.png,0\n")
    with pytest.raises(Unclear, match="Absolute paths are taken as they are") as caught:
        ManifestSource(str(folder / "t.csv"), image_root=str(folder)).content_key()
    ((_, ((setting, made),)),) = caught.value.steps
    assert (setting, made) == ("derive", {"image": {"column": "image", "pattern": "^/gone/x/", "replace": ""}})
    assert f"relative paths of them, from {folder}" in str(caught.value)


def test_paths_as_spreadsheets_and_windows_write_them(folder: Path) -> None:
    Image.new("L", (1, 1), 40).save(folder / "back\\slash.png")  # a file that is called so
    lines = ['"pictures/a.png ",0', "pictures\\b.png,1", " pictures\\c.png,1", "back\\slash.png,0", "no\\such.png,0"]
    (folder / "t.csv").write_text("\n".join(["image,label", *lines]))
    records = ManifestSource(str(folder / "t.csv")).records()
    files = ["pictures/a.png", "pictures/b.png", "pictures/c.png", "back\\slash.png", "no\\such.png"]
    assert records.image_uris() == [f"{folder}/{name}" for name in files]
    assert records.ids[1] == "pictures\\b.png"


def test_columns_are_derived_and_constants_fill(folder: Path) -> None:
    source = ManifestSource(
        str(folder / "table.csv"),
        columns={"image": "path", "category": "topic"},
        derive={"label": Derived("path", "/[bc]"), "id": Derived("path", r"^.*/(\w)\.png$", r"\1")},
        constants={"source": "mine"},
    )
    records = source.records()
    assert records.labels.tolist() == [0, 1, 1]
    assert records.ids.tolist() == ["a", "b", "c"]
    assert records.sources.tolist() == ["mine"] * 3
    assert records.image_uris() == ManifestSource(str(folder / "table.csv"), columns=COLUMNS).records().image_uris()
    whole = ManifestSource(str(folder / "table.csv"), columns={"image": "path"}, constants={"label": 1})
    assert whole.records().labels.tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match="derive names 'labell'"):
        ManifestSource("t.csv", derive={"labell": Derived("path")})


@pytest.mark.parametrize("name", ["category", "source", "group", "id", "image"])
def test_lists_and_objects_are_text_as_in_tars(tmp_path: Path, name: str) -> None:
    columns: dict[str, object] = {"id": ["a", "b"], "label": [0, 1], name: [["x", None], ["y"]]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    records = ManifestSource(str(tmp_path / "t.parquet")).records()
    assert records.column(name).tolist() == ['["x", null]', '["y"]']
    assert not records.labels[0]


def test_blanks_behind_delimiters_are_of_no_cell(tmp_path: Path) -> None:
    rows = "a , safe , fire , p, train \nb,unsafe,fire,p ,train\n"
    (tmp_path / "t.csv").write_text("image, label, category, pair_id, split\n" + rows)
    records = ManifestSource(str(tmp_path / "t.csv")).records()
    assert records.categories.tolist() == ["fire", "fire"]
    assert records.pair_ids.tolist() == ["p", "p"]
    assert records.splits.tolist() == ["train", "train"]


def test_a_table_without_labels_lists_its_own_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("filename,size,is_safe,nsfw\na.png,3,1,no\nb.png,4,0,yes\n")
    message = refused(ManifestSource(str(tmp_path / "t.csv"), columns={"image": "filename"}))
    assert "has no column 'label'. It has: filename, size, is_safe, nsfw." in message
    first = message.splitlines()[1].strip()
    assert first == "columns={image: filename, label: nsfw}"
    assert message.endswith("constants={label: 0}")
    read = ManifestSource(str(tmp_path / "t.csv"), columns={"image": "filename", "label": "nsfw"})
    assert read.records().labels.tolist() == [0, 1]
    both = refused(ManifestSource(str(tmp_path / "t.csv")))
    assert "has neither a column 'image' nor 'id'" in both
    assert both.endswith("columns={image: filename, label: nsfw}")


def test_a_column_of_too_many_values_comes_with_those_that_may_be_meant(tmp_path: Path) -> None:
    rows = [f"{k}.png,{k / 1000},{['ok', 'nsfw'][k % 2]}" for k in range(300)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label,rating", *rows]))
    message = refused(ManifestSource(str(tmp_path / "t.csv")))
    assert "300 values are too many for labels. Another column may hold them:\n  columns={label: rating}" in message


def test_images_inside_a_table_are_another_sources(tmp_path: Path) -> None:
    write_hub_parquet(tmp_path / "t.parquet", {"picture": [hub_image(3), hub_image(4)], "label": [0, 1]})
    with pytest.raises(Unclear, match="holds the images themselves, in the column 'picture'") as caught:
        ManifestSource(str(tmp_path / "t.parquet")).records()
    ((_, ((name, target),)),) = caught.value.steps
    source = build({"path": str(tmp_path / "t.parquet"), name: target}, "source")
    assert source.records().labels.tolist() == [0, 1]
    assert [shade(source.image(i)) for i in range(2)] == [3, 4]


def test_records_without_images_cannot_be_embedded(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,label,image\na,safe,\n")
    with pytest.raises(DataError, match=r"1 of 1 records of the manifest .* have no image: a"):
        ManifestSource(str(tmp_path / "t.csv")).content_key()
    with pytest.raises(DataError, match=r"Record a of the manifest .* has no image"):
        ManifestSource(str(tmp_path / "t.csv")).encoded(0)


def test_the_content_key_follows_the_files_not_the_labels(folder: Path) -> None:
    path = folder / "table.csv"

    def key() -> str:
        return ManifestSource(str(path), columns=COLUMNS).content_key()

    before = key()
    path.write_text(path.read_text().replace("b.png,1", "b.png,0"))
    assert key() == before
    image = folder / "pictures" / "b.png"
    stat = image.stat()
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    touched = key()
    assert touched != before
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(image)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert key() != touched


@pytest.mark.data
def test_the_fire_photographs(data_dir: Path) -> None:
    source = ManifestSource(
        str(data_dir / "fire/labels.csv"),
        image_root=str(data_dir / "fire/images"),
        columns={"image": "path", "label": "unsafe"},
    )
    records = source.records()
    assert (len(records), int(records.labels.sum())) == (647, 109)
    assert len(source.content_key()) == 64
    assert min(source.image(0).size) == 256
