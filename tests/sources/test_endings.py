"""One list of endings: what it holds can be decoded, by every reader; HEIC with and without its package."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from guardtrain.guards.prediction_inputs import input_images
from guardtrain.installing import install_line
from guardtrain.sources import ImageFolderSource, WebDatasetSource, decoding
from guardtrain.sources.decoding import HEIF_ENDINGS, decode, endings
from guardtrain.sources.endings import ending_of
from tests.sources.tiny import write_tar

ENDINGS = sorted(endings())
COLOUR = (200, 40, 90)


def written(ending: str) -> bytes:
    """An image in the format that has this ending."""
    Image.init()
    if ending in HEIF_ENDINGS:
        pytest.importorskip("pillow_heif").register_heif_opener()
    kind = Image.registered_extensions()[ending]
    grey = ending in (".pbm", ".pgm", ".pfm")
    image = Image.new("RGB", (32, 24), COLOUR)
    if grey:
        image = image.convert({".pbm": "1", ".pgm": "L", ".pfm": "F"}[ending])
    file = io.BytesIO()
    image.save(file, {"MPO": "MPO"}.get(kind, kind))
    return file.getvalue()


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where the package that decodes HEIC is not installed."""
    monkeypatch.setattr(decoding, "HEIF_PACKAGE", "no_such_package_of_anybody")
    decoding.heif_readable.cache_clear()
    decoding.endings.cache_clear()
    yield
    monkeypatch.undo()
    decoding.heif_readable.cache_clear()
    decoding.endings.cache_clear()


def test_the_list_follows_from_the_formats() -> None:
    assert {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".ppm",
    } <= endings()
    assert (".avif" in endings()) == features.check("avif")
    assert (".jp2" in endings()) == features.check("jpg_2000")
    assert not {".tga", ".ico", ".eps", ".svg", ".txt", ""} & endings()


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_read_by_every_reader(tmp_path: Path, ending: str) -> None:
    content = written(ending)
    pixels = np.asarray(decode(content)).reshape(-1, 3).mean(0)
    expected = np.full(3, pixels.mean()) if ending in (".pbm", ".pgm", ".pfm") else np.array(COLOUR)
    assert pixels == pytest.approx(expected, abs=6)
    (tmp_path / "set" / "safe").mkdir(parents=True)
    (tmp_path / "set" / "safe" / f"a{ending}").write_bytes(content)
    (tmp_path / "set" / "safe" / f"b{ending.upper()}").write_bytes(content)
    folder = ImageFolderSource(str(tmp_path / "set"))
    assert folder.records().ids.tolist() == [f"safe/a{ending}", f"safe/b{ending.upper()}"]
    assert folder.image(1).size == (32, 24)
    assert [Path(image.id).name for image in input_images([str(tmp_path / "set")])] == [
        f"a{ending}",
        f"b{ending.upper()}",
    ]
    write_tar(tmp_path / "x.tar", [(f"a{ending}", content), ("a.cls", b"0")])
    tars = WebDatasetSource(str(tmp_path / "x.tar"), index_dir=str(tmp_path / "index"))
    assert tars.records().ids.tolist() == ["x/a"]
    assert tars.image(0).size == (32, 24)


def test_floats_from_0_to_1_are_no_black_image() -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(file, "TIFF")
    assert np.unique(np.asarray(decode(file.getvalue()))).tolist() == [127]


def test_heic_is_told_by_its_brands_and_not_by_its_name() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    content = written(".heic")
    assert decoding.is_heif(content[:64])
    assert set(HEIF_ENDINGS) == {e for e, kind in Image.registered_extensions().items() if kind == "HEIF"}
    # the brand that HEIC shares with AVIF: what stands among the compatible ones decides
    size = int.from_bytes(content[:4], "big")
    shared = content[:8] + b"mif1" + content[12:16] + content[8:12] * ((size - 16) // 4) + content[size:]
    assert decode(shared).size == (32, 24)
    if features.check("avif"):
        assert not decoding.is_heif(written(".avif")[:64])
    with pytest.raises(OSError, match=r"damaged|cannot|known format"):
        decode(content[: len(content) // 2])


@pytest.mark.usefixtures("without_heif")
def test_without_its_package_heic_is_counted_and_says_what_to_install(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    start = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    hint = f"(not decodable: HEIC needs pillow-heif: {install_line('heic')})"
    with pytest.raises(OSError, match=re.escape(f"not decodable: HEIC needs pillow-heif: {install_line('heic')}")):
        decode(start)
    for name, content in (("a.heic", start), ("b.HEIC", start), ("noname", start), ("c.png", written(".png"))):
        (tmp_path / "unsafe").mkdir(exist_ok=True)
        (tmp_path / "unsafe" / name).write_bytes(content)
    assert ImageFolderSource(str(tmp_path)).records().ids.tolist() == ["unsafe/c.png"]
    assert f"passed over: 2 .heic {hint}, 1 HEIC without an ending {hint}" in caplog.text
    write_tar(tmp_path / "x.tar", [("a.heic", start), ("a.cls", b"0"), ("b.png", written(".png")), ("b.cls", b"1")])
    assert WebDatasetSource(str(tmp_path / "x.tar")).records().ids.tolist() == ["x/b"]
    assert f"1 sample lacks an image that can be decoded and is left out; found there: 1 .heic {hint}." in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.JPG", ".jpg"), ("a.tar.gz", ".gz"), ("a", ""), (".png", ""), ("a.", ""), ("22.05", ""), ("a.1 copy", ""),
        ("a.7z", ".7z"), ("a.mp4", ".mp4"), ("a.jpg ", ""), ("v1.2", ""), ("a.jpg_large", ".jpg_large"),
    ],
)  # fmt: skip
def test_what_is_an_ending(name: str, ending: str) -> None:
    assert ending_of(f"some.folder/{name}") == ending
