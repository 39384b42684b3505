"""Tars of samples: as the webdataset package reads them, by offset, from files, URLs and pipes; and damaged ones."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.errors import ConfigError, DataError
from guardtrain.sources import EncodedImageSource, PairColumns, WebDatasetSource
from guardtrain.sources.images import read_encoded
from guardtrain.sources.tar_index import read_index, sample_name
from tests.sources.tiny import png, shade, write_shards, write_tar


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shards(tmp_path / "shards")
    return tmp_path / "shards"


def refused(path: str | Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        WebDatasetSource(str(path), **settings).records()  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("pattern", ["{}", "{}/*.tar", "{}/{{00000..00002}}.tar", "pipe:cat {}/{{00000..00002}}.tar"])
def test_the_samples_are_those_that_webdataset_reads(shards: Path, tmp_path: Path, pattern: str) -> None:
    webdataset = pytest.importorskip("webdataset")
    source = WebDatasetSource(pattern.format(shards), index_dir=str(tmp_path / "index"), spooled=2)
    files = [str(file) for file in sorted(shards.glob("*.tar"))]
    theirs = list(webdataset.WebDataset(files, shardshuffle=False))
    records = source.records()
    assert isinstance(source, EncodedImageSource)
    assert [i.rpartition("/")[2] for i in records.ids] == [sample["__key__"] for sample in theirs]
    assert records.ids[5] == "00001/00000005"
    assert [source.encoded(i) for i in range(len(records))] == [sample["png"] for sample in theirs]
    assert records.labels.tolist() == [int(sample["cls"]) for sample in theirs]
    assert records.column("txt").tolist() == ["a grey"] * 12
    assert records.categories.tolist() == [json.loads(sample["json"])["category"] for sample in theirs]
    assert [shade(source.image(i)) for i in (11, 0, 6, 3)] == [11, 0, 6, 3]


_member = st.builds(
    "{}{}.{}".format,
    st.sampled_from(["", "d/", "d.e/", "./", "__meta__/"]),
    st.sampled_from(["a", "b", "_c"]),
    st.sampled_from(["png", "PNG", "front.png", "cls", "json", "bin"]),
)


@given(st.lists(_member, min_size=1, max_size=12), st.integers(0, 1400))
@settings(max_examples=60, deadline=None)
def test_the_index_groups_members_as_webdataset_does(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], size: int
) -> None:
    tariterators = pytest.importorskip("webdataset.tariterators")
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    contents = {i: bytes([i]) * (size + i) for i in range(len(names))}
    write_tar(path, [(name, contents[i]) for i, name in enumerate(names)])
    try:
        with path.open("rb") as file:
            theirs = list(tariterators.group_by_keys(tariterators.tar_file_expander([{"url": "x", "stream": file}])))
    except ValueError:  # two members of one suffix in a sample
        with path.open("rb") as file, pytest.raises(DataError, match=r"two members"):
            read_index(file, "k", "x")
        return
    with path.open("rb") as file:
        samples = read_index(file, "k", "x").samples.to_pylist()
    content = path.read_bytes()
    ours = [
        {"__key__": s["key"]}
        | {m["suffix"]: content[m["offset"] : m["offset"] + m["size"]] for m in s["members"]}
        | {name: s[name].encode() for name in ("json", "cls") if s[name] is not None}
        for s in samples
    ]
    hidden = ("__url__", "__local_path__")
    assert ours == [{k: v for k, v in sample.items() if k not in hidden} for sample in theirs]


def test_names_without_a_dot_or_a_stem_are_no_samples() -> None:
    assert sample_name("a/b") is None
    assert sample_name("a/.hidden") is None


def test_many_threads_read_what_one_reads(shards: Path) -> None:
    source = WebDatasetSource(f"pipe:cat {shards}/{{00000..00002}}.tar", spooled=1)
    order = [i for k in range(12) for i in (k, 11 - k)] * 4
    source.records()
    with ThreadPoolExecutor(8) as pool:
        assert [shade(image) for image in pool.map(source.image, order)] == order


def test_the_index_is_kept_until_the_tar_changes(shards: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"

    def source() -> WebDatasetSource:
        return WebDatasetSource(str(shards / "00000.tar"), index_dir=str(index))

    first = source().content_key()
    (file,) = index.glob("*.parquet")
    made = file.stat().st_mtime_ns
    assert source().content_key() == first
    assert file.stat().st_mtime_ns == made
    # what the index says is what is believed, as long as size and time agree
    table = pq.read_table(file)
    moved = table.set_column(0, "key", pa.array(["w", "x", "y", "z"]))
    pq.write_table(moved.replace_schema_metadata(table.schema.metadata), file)
    assert source().records().ids[0] == "00000/w"
    write_tar(shards / "00000.tar", [("new.png", png(9)), ("new.cls", b"1")])
    assert source().records().ids.tolist() == ["00000/new"]
    assert source().content_key() != first
    file.write_bytes(b"damaged")
    assert source().records().ids.tolist() == ["00000/new"]


def test_an_index_folder_that_cannot_be_written_costs_nothing_but_time(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(WebDatasetSource(str(shards), index_dir=str(tmp_path / "file" / "index")).records()) == 12


def test_the_content_key_follows_the_tars_and_the_choice_of_images(shards: Path) -> None:
    key = WebDatasetSource(str(shards)).content_key()
    assert WebDatasetSource(str(shards), labels={"0": 1, "1": 0}, source="mine").content_key() == key
    assert WebDatasetSource(f"{shards}/0000{{0,1,2}}.tar").content_key() == key
    some = {cls: WebDatasetSource(str(shards), where={"cls": cls}).content_key() for cls in ("0", "1")}
    assert len({key, *some.values()}) == 3
    tar = shards / "00001.tar"
    os.utime(tar, ns=(0, tar.stat().st_mtime_ns + 1))
    assert WebDatasetSource(str(shards)).content_key() != key


def test_pickled_it_takes_its_settings_only(shards: Path) -> None:
    source = WebDatasetSource(str(shards), where={"cls": "1"})
    source.records()
    pickled = pickle.dumps(source)
    assert len(pickled) < 1000
    assert shade(pickle.loads(pickled).image(2)) == 5


def test_urls_are_read_by_range(shards: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for tar in shards.iterdir():
        memory.pipe(f"/wds/{tar.name}", tar.read_bytes())
    source = WebDatasetSource("memory://wds/{00000..00002}.tar")
    assert [shade(source.image(i)) for i in (10, 2, 7)] == [10, 2, 7]
    assert source.records().ids[10] == "00002/00000010"


def test_the_image_column_is_a_url_that_fsspec_opens(shards: Path) -> None:
    source = WebDatasetSource(str(shards))
    uri = source.records().image_uri(7)
    assert uri == f"tar://00000007.png::{shards}/00001.tar"
    assert read_encoded(uri) == source.encoded(7)
    assert WebDatasetSource(f"pipe:cat {shards}/00001.tar").records().image_uri(0) is None


@pytest.mark.parametrize("piped", [False, True])
def test_compressed_tars_are_spooled(shards: Path, tmp_path: Path, piped: bool) -> None:
    folder = tmp_path / "packed"
    folder.mkdir()
    for tar in shards.iterdir():
        (folder / f"{tar.name}.gz").write_bytes(gzip.compress(tar.read_bytes()))
    path = f"pipe:cat {folder}/{{00000..00002}}.tar.gz" if piped else str(folder)
    source = WebDatasetSource(path, spooled=1)
    assert source.records().ids[4] == "00001/00000004"
    assert [shade(source.image(i)) for i in (11, 0, 5)] == [11, 0, 5]


def test_img2datasets_parquet_beside_the_tar_is_joined(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", [("000000001.png", png(1)), ("000000000.png", png(0))])
    beside = {"key": ["000000000", "000000001", "000000002"], "nsfw": ["safe", "unsafe", "safe"], "status": ["ok"] * 3}
    pq.write_table(pa.table(beside), tmp_path / "00000.parquet")
    write_tar(tmp_path / "00001.tar", [("000010000.png", png(7)), ("000010000.json", b'{"nsfw": "unsafe"}')])
    source = WebDatasetSource(str(tmp_path / "00000.tar"), columns={"label": "nsfw"})
    assert source.records().labels.tolist() == [1, 0]
    assert source.records().column("status").tolist() == ["ok", "ok"]
    both = WebDatasetSource(str(tmp_path), columns={"label": "nsfw"}, where={"status": "ok"})
    assert "'nsfw' holds" not in refused(tmp_path, columns={"label": "status"})
    # the JSON of one tar has the column, so the Parquet file beside the other does not replace it
    assert both.records is not None
    assert "column 'label'" in refused(tmp_path / "00000.tar", sidecar=False)


def test_columns_of_differing_types_become_text(tmp_path: Path) -> None:
    for number, value in enumerate((1, "x", None, [1, 2])):
        members = [("a.png", png(number)), ("a.json", json.dumps({"v": value, "label": number % 2}).encode())]
        write_tar(tmp_path / f"{number}.tar", members)
    assert WebDatasetSource(str(tmp_path)).records().column("v").tolist() == ["1", "x", None, "[1, 2]"]


def test_several_images_a_sample_need_a_choice_or_are_a_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [
        ("a.safe.png", png(1)),
        ("a.unsafe.png", png(2)),
        ("a.cls", b"0"),
        ("b.safe.png", png(3)),
        ("b.cls", b"0"),
    ]
    write_tar(tmp_path / "x.tar", members)
    path = str(tmp_path / "x.tar")
    assert "The sample a of" in (message := refused(path))
    assert "several images (safe.png, unsafe.png)" in message
    chosen = WebDatasetSource(path, columns={"image": "safe.png"})
    assert [shade(chosen.image(i)) for i in range(2)] == [1, 3]
    assert "Did you mean 'safe.png'" in refused(path, columns={"image": "safe.pn"})
    pairs = WebDatasetSource(path, pairs=PairColumns("safe.png", "unsafe.png", edited="safe"))
    records = pairs.records()
    assert records.ids.tolist() == ["x/a/safe", "x/a/unsafe"]
    assert records.pair_ids.tolist() == ["x/a", "x/a"]
    assert (records.labels.tolist(), records.edited.tolist()) == ([0, 1], [True, False])
    assert [shade(pairs.image(i)) for i in range(2)] == [1, 2]
    assert (
        "1 sample lacks one of the members safe.png, unsafe.png and is left out; found there: 1 .png."
        in capsys.readouterr().err
    )
    assert pairs.content_key() != WebDatasetSource(path, pairs=PairColumns("unsafe.png", "safe.png")).content_key()


def test_samples_without_an_image_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [
        ("a.json", b"{}"),
        ("b.png", png(1)),
        ("b.cls", b"1"),
        ("c.png.tmp", b""),
        ("d.tga", b""),
        ("e.TGA", b""),
    ]
    write_tar(tmp_path / "x.tar", members)
    source = WebDatasetSource(str(tmp_path))
    assert source.records().ids.tolist() == ["x/b"]
    assert (
        "4 samples lack an image that can be decoded and are left out; found there: 2 .tga, 1 .tmp, "
        "1 of json, cls and txt alone." in capsys.readouterr().err
    )
    write_tar(tmp_path / "x.tar", [("a.tga", b""), ("b.xcf", b"")])
    assert "There are: 1 .tga, 1 .xcf." in refused(tmp_path)


def test_a_dot_in_a_samples_name_is_told(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("22.05.png", png(1)), ("22.06.png", png(2))])
    message = refused(tmp_path)
    assert "several images (05.png, 06.png)" in message
    assert "'22.05.png' is the member '05.png' of the sample '22'" in message


def test_members_and_tars_whose_names_are_no_utf8(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("caf\udce9/a.png", png(7)), ("caf\udce9/a.cls", b"1")])
    (tmp_path / "x.tar").rename(tmp_path / os.fsdecode(b"\xe8.tar"))
    source = WebDatasetSource(str(tmp_path), index_dir=str(tmp_path / "index"))
    assert source.records().ids.tolist() == ["\\xe8/caf\\xe9/a"]
    assert shade(source.image(0)) == 7
    assert WebDatasetSource(str(tmp_path), index_dir=str(tmp_path / "index")).content_key() == source.content_key()


def test_without_labels_a_constant_is_one(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("a.png", png(1))])
    assert "Give all rows one, 0 for safe or 1 for unsafe:\n  constants={label: 0}" in refused(tmp_path)
    assert WebDatasetSource(str(tmp_path), constants={"label": 0}).records().labels.tolist() == [0]


def test_tars_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for part in ("x", "y"):
        write_tar(tmp_path / part / "0.tar", [("a.png", png(1)), ("a.cls", b"1")])
    assert WebDatasetSource(str(tmp_path)).records().ids.tolist() == ["x/0/a", "y/0/a"]


def test_damaged_tars_are_named(shards: Path, tmp_path: Path) -> None:
    whole = (shards / "00001.tar").read_bytes()
    (shards / "00001.tar").write_bytes(whole[: whole.index(b"PNG", 600) + 20])
    assert f"{shards}/00001.tar is no whole tar" in refused(shards)
    (shards / "00001.tar").write_bytes(b"")
    assert "00001.tar is no whole tar" in refused(shards)
    (shards / "00001.tar").write_bytes(os.urandom(3000))
    assert "00001.tar is no whole tar" in refused(shards)
    assert "There are no tars at" in refused(tmp_path / "none.tar")
    write_tar(tmp_path / "t" / "x.tar", [("a.json", b"{}")])
    assert "hold no samples with images" in refused(tmp_path / "t")


def test_a_tar_cut_short_after_it_was_indexed_is_an_error_of_the_image(shards: Path) -> None:
    source = WebDatasetSource(str(shards / "00000.tar"))
    source.records()
    os.truncate(shards / "00000.tar", 600)
    with pytest.raises(OSError, match="cut short since it was indexed"):
        source.encoded(3)


def test_pipes_that_fail_or_change_are_named(shards: Path, tmp_path: Path) -> None:
    message = refused(f"pipe:cat {tmp_path}/none.tar")
    assert "ended with status 1" in message
    assert "No such file" in message
    assert "ended with status 3" in refused(f"pipe:cat {shards}/00000.tar; exit 3")
    path, index = f"pipe:cat {shards}/00000.tar", str(tmp_path / "index")
    key = WebDatasetSource(path, index_dir=index).content_key()
    write_tar(shards / "00000.tar", [("new.png", png(9)), ("new.cls", b"1")])
    stale = WebDatasetSource(path, index_dir=index)
    assert stale.content_key() == key  # found out as soon as anything is read
    with pytest.raises(DataError, match="gives another stream than when it was indexed") as caught:
        stale.image(0)
    Path(str(caught.value).split("Delete ")[1].split(" to index")[0]).unlink()
    fresh = WebDatasetSource(path, index_dir=index)
    assert (fresh.content_key() != key, shade(fresh.image(0))) == (True, 9)


def test_wrong_settings_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="spooled must be at least 1"):
        WebDatasetSource("x.tar", spooled=0)
    with pytest.raises(ConfigError, match="unpaired is 'maybe'; allowed: error, drop, keep"):
        WebDatasetSource("x.tar", unpaired="maybe")


def test_members_that_are_not_neighbours_are_told_with_how_to_write_the_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    members = [("a.png", png(1)), ("b.png", png(2)), ("a.cls", b"1"), ("b.cls", b"0")]
    write_tar(Path("x.tar"), members)
    message = refused("x.tar")
    assert "the members of 2 samples are not neighbours, such as those of a, b" in message
    done = subprocess.run(message.splitlines()[-1], shell=True, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:  # not GNU's tar
        pytest.skip(done.stderr)
    source = WebDatasetSource("sorted.tar")
    assert source.records().labels.tolist() == [1, 0]
    assert [shade(source.image(i)) for i in range(2)] == [1, 2]


def test_metadata_that_is_lost_to_a_dot_or_another_folder_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "x.tar", [("22.05.png", png(1)), ("22.05.json", b'{"label": 1}')])
    message = refused(tmp_path)
    assert "has no column 'label'" in message or "have no column 'label'" in message
    assert "'22.05.png' is the member '05.png' of the sample '22'" in message
    write_tar(tmp_path / "x.tar", [("i/1.png", png(1)), ("l/1.json", b'{"label": 1}')])
    assert "constants={label: 0}" in refused(tmp_path)
    assert "'l/1' and 'i/1' are two samples, for they lie in two folders" in capsys.readouterr().err


def test_keys_beside_a_tar_may_be_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "x.tar", [("0007.png", png(1)), ("0010.png", png(2))])
    pq.write_table(pa.table({"key": [10, 7], "label": [0, 1]}), tmp_path / "x.parquet")
    assert WebDatasetSource(str(tmp_path / "x.tar")).records().labels.tolist() == [1, 0]
    pq.write_table(pa.table({"key": [1, 2], "label": [0, 1]}), tmp_path / "x.parquet")
    refused(tmp_path / "x.tar")
    assert "none of its keys, such as 1, 2, is that of a sample" in capsys.readouterr().err
