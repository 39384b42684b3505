"""The whole pipeline against open_clip and timm in float32, image by image, and the choice of bfloat16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from guardtrain.embeddings import arithmetic, embed
from guardtrain.embeddings.arithmetic import PARITY, choose_arithmetic, computes_bfloat16, cosines
from guardtrain.embeddings.extraction import extract
from guardtrain.embeddings.reading import make_reader
from guardtrain.encoders import EncoderSettings, load_encoder, resolve_spec
from guardtrain.encoders.encoder import Encoder
from guardtrain.errors import DataError
from guardtrain.sources import ManifestSource
from tests.embeddings.fake_encoder import FakeEncoder, Pictures

CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 6, "width": 128, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs of several sizes: shapes, gradients and grain."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    lines = ["image,label,caption"]
    for i, (height, width) in enumerate([(90, 120), (500, 375), (64, 64), (200, 700), (650, 600), (80, 81)]):
        x = np.linspace(0, 200, width)[None, :, None] * rng.random(3) + np.linspace(0, 55, height)[:, None, None]
        x = x + 60 * np.kron(rng.random((height // 10 + 1, width // 10 + 1, 3)), np.ones((10, 10, 1)))[:height, :width]
        Image.fromarray(np.clip(x + rng.normal(0, 5, x.shape), 0, 255).astype(np.uint8)).save(
            folder / f"{i}.jpg", quality=90
        )
        lines.append(f"{i}.jpg,{i % 2},{'a photograph of number ' + str(i) if i != 4 else ''}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A six-layer CLIP with random weights."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.model.CLIP(**CONFIG)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(folder / "open_clip_model.safetensors"))
    return folder


def reference(clip: Path, files: list[Path]) -> np.ndarray:
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{clip}")
    with torch.no_grad():
        inputs = torch.stack([transform(Image.open(file)) for file in files])
        return np.asarray(model.eval().encode_image(inputs, normalize=True).numpy())


def source(photos: Path) -> ManifestSource:
    return ManifestSource(str(photos / "table.csv"))


def test_the_pipeline_equals_open_clip(clip: Path, photos: Path, tmp_path: Path) -> None:
    files = [photos / f"{i}.jpg" for i in range(6)]
    found = extract(source(photos), EncoderSettings(checkpoint=str(clip)), tmp_path, progress=False).matrix()
    cosine = cosines(np.asarray(found), reference(clip, files))
    assert cosine.min() > 1 - 1e-6


def test_in_bfloat16_every_image_is_within_parity(clip: Path, photos: Path, tmp_path: Path) -> None:
    def load(settings: Any) -> Encoder:
        model = load_encoder(settings)
        model.use_bfloat16()
        return model

    files = [photos / f"{i}.jpg" for i in range(6)]
    found = extract(source(photos), EncoderSettings(checkpoint=str(clip)), tmp_path, progress=False, load=load)
    difference = 1 - cosines(np.asarray(found.matrix()), reference(clip, files))
    assert 1e-9 < difference.max() < PARITY / 3
    # autocast alone, whose residual stream is bfloat16, is several times as far off
    plain = load_encoder(EncoderSettings(checkpoint=str(clip), dtype="bfloat16"))
    autocast = 1 - cosines(plain.encode_images([Image.open(f) for f in files]), reference(clip, files))
    assert difference.mean() < autocast.mean()


def test_the_same_store_of_any_machine_and_finished_as_begun(
    clip: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FEWEST_ROWS", "_SMALLEST_MODEL"):
        monkeypatch.setattr(arithmetic, name, 1)
    settings = EncoderSettings(checkpoint=str(clip))
    for has in (True, False):
        monkeypatch.setattr(arithmetic, "computes_bfloat16", lambda device, has=has: has)
        extract(source(photos), settings, tmp_path / str(has), shard_size=2, progress=False)
    plans = {has: json.loads((tmp_path / str(has) / "extraction.json").read_text()) for has in (True, False)}
    assert [plans[has].pop("arithmetic") for has in (True, False)] == ["bfloat16", "float32"]
    assert plans[True] == plans[False]  # the fingerprint, too
    before = (tmp_path / "True" / "img_emb" / "img_emb_0001.npy").read_bytes()
    (tmp_path / "True" / "metadata" / "metadata_0001.parquet").unlink()
    extract(source(photos), settings, tmp_path / "True", shard_size=2, progress=False)  # where bfloat16 is not quick
    assert (tmp_path / "True" / "img_emb" / "img_emb_0001.npy").read_bytes() == before
    exact = EncoderSettings(checkpoint=str(clip), dtype="float32")
    assert resolve_spec(exact).fingerprint == resolve_spec(settings).fingerprint
    assert resolve_spec(EncoderSettings(checkpoint=str(clip), dtype="bfloat16")).dtype == "bfloat16"


def test_bfloat16_that_changes_embeddings_is_not_used(
    clip: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FEWEST_ROWS", "_SMALLEST_MODEL"):
        monkeypatch.setattr(arithmetic, name, 1)
    monkeypatch.setattr(arithmetic, "computes_bfloat16", lambda device: True)
    settings = EncoderSettings(checkpoint=str(clip))

    def chosen(parity: float) -> str:
        monkeypatch.setattr(arithmetic, "_SAMPLE_PARITY", parity)
        model = load_encoder(settings)
        reader = make_reader(source(photos), source(photos).records(), model)
        return choose_arithmetic(model, reader, 6, lambda: load_encoder(settings)).arithmetic

    assert chosen(PARITY) == "bfloat16"
    assert chosen(1e-9) == "float32"


def test_small_models_and_few_images_stay_in_float32(clip: Path, photos: Path, tmp_path: Path) -> None:
    extract(source(photos), EncoderSettings(checkpoint=str(clip)), tmp_path, progress=False)
    assert json.loads((tmp_path / "extraction.json").read_text())["arithmetic"] == "float32"
    assert not computes_bfloat16(torch.device("mps"))


@pytest.mark.data
def test_real_weights_and_real_photographs_per_image(data_dir: Path, tmp_path: Path) -> None:
    weights = data_dir / "encoders/mobilenetv2_100_from_coral_ptq_fp16.safetensors"
    arguments = {"pad_type": "same", "num_classes": 1001}
    settings = EncoderSettings(
        family="timm", model="mobilenetv2_100", checkpoint=str(weights), image_size=224, mean=[127 / 255] * 3,
        std=[0.5] * 3, crop_pct=1.0, interpolation="bilinear", normalize=False, model_kwargs=arguments,
    )  # fmt: skip
    files = sorted((data_dir / "fire/images").rglob("*.jpg"))[::65]
    large = Image.open(files[0]).convert("RGB").resize((1900, 1850), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(0).normal(0, 5, (1850, 1900, 1))
    large = Image.fromarray(np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8))
    large.save(tmp_path / "large.jpg", quality=90)  # one that is decoded at a fraction of its size
    files.append(tmp_path / "large.jpg")
    table = "image,label\n" + "".join(f"{file},0\n" for file in files)
    (tmp_path / "table.csv").write_text(table)
    model = timm.create_model("mobilenetv2_100", **arguments)
    model.load_state_dict(load_file(weights))
    transform = timm.data.create_transform((3, 224, 224), interpolation="bilinear", crop_pct=1.0, mean=settings.mean,
                                           std=settings.std)  # fmt: skip
    inputs = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    with torch.no_grad():
        expected = model.eval().forward_features(inputs).mean((2, 3)).numpy()
    found = extract(ManifestSource(str(tmp_path / "table.csv")), settings, tmp_path / "store", progress=False)
    assert (1 - cosines(np.asarray(found.matrix()), expected)).max() < PARITY


def test_texts_into_the_same_kind_of_store(clip: Path, photos: Path, tmp_path: Path) -> None:
    settings = EncoderSettings(checkpoint=str(clip))
    found = embed(source(photos), settings, tmp_path, text="caption", progress=False)
    captions = [f"a photograph of number {i}" for i in range(6) if i != 4]
    np.testing.assert_allclose(np.asarray(found.matrix), load_encoder(settings).encode_text(captions), atol=1e-6)
    assert found.records.ids.tolist() == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "5.jpg"]  # one has no text
    images = embed(source(photos), settings, tmp_path, progress=False)
    assert len(images) == 6
    assert images.spec.fingerprint == found.spec.fingerprint
    with pytest.raises(DataError, match=r"no column 'prompt' of texts; the records have: .*caption"):
        embed(source(photos), settings, tmp_path, text="prompt", progress=False)


def test_memory_does_not_grow_with_what_is_read_ahead(tmp_path: Path) -> None:
    """Of 400 images only a few are decoded before the model has taken the first."""
    ahead, taken = [0], [0]

    def at(i: int) -> None:
        ahead[0] = max(ahead[0], i - taken[0])

    class Slow(FakeEncoder):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            taken[0] += len(images)
            return super().forward(images)

    from tests.embeddings.fake_encoder import SPEC

    extract(Pictures(400, at), SPEC, tmp_path, workers=2, progress=False, load=lambda _: Slow(4))  # type: ignore[arg-type, return-value]
    assert ahead[0] <= 4 * (2 * 2 + 2)
