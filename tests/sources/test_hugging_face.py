"""Data sets of the hub: local copies, what `datasets` loads, and what is said where access is missing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from guardtrain.errors import DataError
from guardtrain.sources import EncodedImageSource, HuggingFaceSource
from guardtrain.sources.hugging_face import explained
from guardtrain.sources.rows import hub_uri
from tests.sources.tiny import hub_image, png, shade, write_hub_parquet

LABELS = {"label": "safety_label"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What `hf download` leaves: two splits as Parquet, one of them in two files, and the card."""
    folder = tmp_path / "copy"
    for file, shades in (
        ("train-00000-of-00002", (0, 1)),
        ("train-00001-of-00002", (2,)),
        ("validation-00000-of-00001", (3, 4)),
    ):
        columns = {"image": [hub_image(k) for k in shades], "safety_label": [["Safe", "Unsafe"][k % 2] for k in shades]}
        write_hub_parquet(folder / "data" / f"{file}.parquet", columns)
    (folder / "README.md").write_text("card")
    (folder / "train_notes.csv").write_text("a,b\n1,2\n")
    return folder


def refused(**settings: object) -> str:
    with pytest.raises(DataError) as caught:
        HuggingFaceSource(**settings).records()  # type: ignore[arg-type]
    return str(caught.value)


def test_a_local_copy_by_splits(copy: Path) -> None:
    source = HuggingFaceSource(path=str(copy), split="train", columns=LABELS)
    assert isinstance(source, EncodedImageSource)
    assert source.records().labels.tolist() == [0, 1, 0]
    assert [shade(source.image(i)) for i in (2, 0, 1)] == [2, 0, 1]
    every = HuggingFaceSource(path=str(copy), columns=LABELS)
    assert every.records().splits.tolist() == ["train"] * 3 + ["val"] * 2
    assert source.records().splits.tolist() == [None] * 3
    assert shade(HuggingFaceSource(path=str(copy), split="validation", columns=LABELS).image(1)) == 4
    message = refused(path=str(copy), split="test", columns=LABELS)
    assert "no files of the split 'test'; splits found: train, validation" in message
    one = HuggingFaceSource(path=str(copy / "data" / "validation-00000-of-00001.parquet"), columns=LABELS)
    assert one.records().ids.tolist() == [f"validation-00000-of-00001/00000{i}" for i in range(2)]


def test_tables_of_paths_and_urls(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(7))
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("url,rating\na.png,Unsafe\nhttps://example.org/b.png,Safe\n")
    columns = {"image": "url", "label": "rating", "group": "url"}
    source = HuggingFaceSource(path=str(tmp_path), split="test", columns=columns)
    records = source.records()
    assert shade(source.image(0)) == 7
    assert records.image_uris() == [f"{tmp_path}/a.png", "https://example.org/b.png"]
    assert records.groups.tolist() == ["a.png", "https://example.org/b.png"]
    key = source.content_key()
    (tmp_path / "test.csv").write_text((tmp_path / "test.csv").read_text().replace("Unsafe", "Safe"))
    assert HuggingFaceSource(path=str(tmp_path), split="test", columns=columns).content_key() == key
    (tmp_path / "a.png").write_bytes(png(200) + b" ")
    assert HuggingFaceSource(path=str(tmp_path), split="test", columns=columns).content_key() != key
    every = HuggingFaceSource(path=str(tmp_path), columns={"image": "url", "label": "rating"})
    assert every.records().splits.tolist() == ["test"] * 2 + ["train"] * 2


@pytest.mark.parametrize("split", ["train", None])
def test_by_name_through_datasets(
    copy: Path, tmp_path: Path, split: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_dataset` takes a folder for a name, so its own reader runs without network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (copy / "train_notes.csv").unlink()
    source = HuggingFaceSource(name=str(copy), split=split, columns=LABELS)
    local = HuggingFaceSource(path=str(copy), split=split, columns=LABELS)
    assert source.records().labels.tolist() == local.records().labels.tolist()
    assert source.records().splits.tolist() == local.records().splits.tolist()
    n = len(local.records())
    assert [source.encoded(i) for i in range(n)] == [local.encoded(i) for i in range(n)]
    assert source.records().ids[0] == "train/000000"
    assert source.content_key() == HuggingFaceSource(name=str(copy), split=split, columns=LABELS).content_key()
    message = refused(name=str(copy), split="nothing", columns=LABELS)
    assert "cannot be loaded: ValueError: Unknown split" in message


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "safety_label": datasets.ClassLabel(names=["safe", "unsafe"])}
    )
    parts = {
        split: datasets.Dataset.from_dict(
            {"image": [hub_image(k) for k in shades], "safety_label": [k % 2 for k in shades]}, features=features
        )
        for split, shades in (("train", [0, 1, 2]), ("test", [3, 4]))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    source = HuggingFaceSource(path=str(tmp_path / "saved"), columns=LABELS)
    records = source.records()
    assert records.labels.tolist() == [0, 1, 0, 1, 0]
    assert records.splits.tolist() == ["train"] * 3 + ["test"] * 2
    assert records.ids.tolist() == [f"train/00000{i}" for i in range(3)] + ["test/000000", "test/000001"]
    # what the library itself gives for each row
    theirs = [image for part in parts.values() for image in part["image"]]
    assert [source.image(i).tobytes() for i in range(5)] == [image.convert("RGB").tobytes() for image in theirs]
    test = HuggingFaceSource(path=str(tmp_path / "saved"), split="test", columns=LABELS)
    assert [shade(test.image(i)) for i in range(2)] == [3, 4]
    assert test.content_key() != source.content_key()
    assert "no split 'val'" in refused(path=str(tmp_path / "saved"), split="val")
    assert "has no image column 'picture'" in refused(path=str(tmp_path / "saved"), columns={"image": "picture"})


def test_splits_that_name_their_classes_in_another_order(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {}
    for split, names, note in (("train", ["safe", "unsafe"], "float64"), ("test", ["unsafe", "safe"], "string")):
        features = {"image": datasets.Image(), "safety_label": datasets.ClassLabel(names=names)}
        cells = {"image": [hub_image(1), hub_image(2)], "safety_label": [0, 1], "note": [None, None]}
        features["note"] = datasets.Value(note)
        parts[split] = datasets.Dataset.from_dict(cells, features=datasets.Features(features))
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    source = HuggingFaceSource(path=str(tmp_path / "saved"), columns=LABELS)
    assert source.records().labels.tolist() == [0, 1, 1, 0]
    assert [shade(source.image(i)) for i in range(4)] == [1, 2, 1, 2]


def test_files_on_the_hub_are_read_with_the_login() -> None:
    page = "https://huggingface.co/datasets/o/n/resolve/abc/deep/1.jpg?download=true"
    assert hub_uri(page) == "hf://datasets/o/n@abc/deep/1.jpg"
    for other in ("https://huggingface.co/datasets/o/n/blob/main/1.jpg", "https://example.org/datasets/o/n/resolve/1"):
        assert hub_uri(other) == other


def test_neither_name_nor_path() -> None:
    assert refused().endswith("Give one of them:\n  name=OWNER/NAME\nor\n  path=FOLDER")


class _Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for a gated data set, and for one that is not there."""

    def do_GET(self) -> None:
        gated = "gated" in self.path
        card = self.path.startswith("/api/datasets/") and "/revision/" not in self.path
        if gated and (card or self.path.endswith(("/revision/main", "/revision/HEAD"))):
            about = {"id": "o/gated", "sha": "0" * 40, "gated": "manual", "private": False, "tags": [], "siblings": []}
            return self._send(200, json.dumps(about | {"siblings": [{"rfilename": "data/train-0.parquet"}]}))
        if gated:
            return self._send(403, "{}", "GatedRepo")
        return self._send(401, '{"error": "Invalid username or password."}', "RepoNotFound")

    do_HEAD = do_GET
    do_POST = do_GET

    def _send(self, status: int, body: str, code: str | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


_ASK = """
import sys
from guardtrain.errors import DataError
from guardtrain.sources import HuggingFaceSource
for name in sys.argv[1:]:
    try:
        HuggingFaceSource(name=name, split="train").records()
    except DataError as error:
        print(error)
"""


def _asked(tmp_path: Path, names: list[str], **environment: str) -> list[str]:
    """What `HuggingFaceSource` says in a process of its own: the hub's address is read when its library is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    settings = {"HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "none", "no_proxy": "*"} | environment
    command = [sys.executable, "-c", _ASK, *names]
    done = subprocess.run(command, env=kept | settings, capture_output=True, text=True, timeout=120, check=True)
    assert "Retry" not in done.stderr
    return done.stdout.splitlines()


def test_missing_access_comes_with_the_steps(hub: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    gated, absent = _asked(tmp_path, ["o/gated", "o/absent"], HF_ENDPOINT=hub)
    assert gated.startswith("The data set o/gated is gated: (1) open https://huggingface.co/datasets/o/gated, log in")
    assert "(2) `hf auth login`, or set HF_TOKEN" in gated
    assert "`hf download o/gated --repo-type dataset --local-dir DIR`, and here path=DIR" in gated
    assert absent.startswith("There is no data set o/absent on the hub that you may see")


def test_offline(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (offline,) = _asked(tmp_path, ["o/name"], HF_HUB_OFFLINE="1")
    assert "is not in the cache of `datasets`, and HF_HUB_OFFLINE forbids to fetch it" in offline
    assert "path=DIR" in offline


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        (said,) = _asked(tmp_path, ["o/name"], HF_ENDPOINT=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert said.startswith("The hub cannot be reached for the data set o/name (")
    assert "path=DIR" in said


def test_other_errors_are_told_in_a_line() -> None:
    unreachable = explained(ConnectionError("Couldn't reach 'o/name' on the Hub\nmore"), "o/name")
    assert unreachable.startswith(
        "The hub cannot be reached for the data set o/name (Couldn't reach 'o/name' on the Hub)."
    )
    assert explained(ValueError("a\nb"), "o/name") == "The data set o/name cannot be loaded: ValueError: a"
