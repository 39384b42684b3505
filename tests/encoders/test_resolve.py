"""From settings to spec: published preprocessing, the QuickGELU trap, unknown names, and the memory of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from guardtrain.encoders import EncoderSettings, EncoderSpec, resolve_spec, settings_for
from guardtrain.encoders import resolve as resolving
from guardtrain.encoders.resolve import OPEN_CLIP_PREPROCESS
from guardtrain.errors import EncoderError


def refused(**settings: object) -> str:
    with pytest.raises(EncoderError) as caught:
        resolve_spec(EncoderSettings(**settings))  # type: ignore[arg-type]
    return str(caught.value)


def test_our_copy_of_open_clips_defaults_is_true() -> None:
    from open_clip.transform import PreprocessCfg

    published = asdict(PreprocessCfg())
    assert {key: published[key] for key in OPEN_CLIP_PREPROCESS} == OPEN_CLIP_PREPROCESS


@pytest.mark.parametrize(
    ("model", "pretrained", "quick_gelu"),
    [
        ("ViT-B-32", "openai", True),  # open_clip itself only warns here, and computes with the wrong activation
        ("ViT-B-32-quickgelu", "openai", True),
        ("ViT-B-32", "laion2b_s34b_b79k", False),
        ("ViT-L-14", "openai", True),
        ("ViT-B-16-SigLIP", "webli", False),
    ],
)
def test_quick_gelu_is_what_the_weights_were_trained_with(model: str, pretrained: str, quick_gelu: bool) -> None:
    spec = resolve_spec(EncoderSettings(model=model, pretrained=pretrained))
    assert spec.quick_gelu is quick_gelu
    forced = resolve_spec(EncoderSettings(model=model, pretrained=pretrained, quick_gelu=not quick_gelu))
    assert forced.quick_gelu is not quick_gelu
    assert forced.fingerprint != spec.fingerprint


def test_published_preprocessing_and_overrides() -> None:
    spec = resolve_spec(EncoderSettings(model="ViT-B-16-SigLIP", pretrained="webli"))
    assert (spec.resize_mode, spec.interpolation) == ("squash", "bicubic")
    assert (spec.mean, spec.image_size, spec.dim) == ((0.5, 0.5, 0.5), (224, 224), 768)
    other = resolve_spec(
        EncoderSettings(model="ViT-B-16-SigLIP", pretrained="webli", mean=[0.1, 0.2, 0.3], resize_mode="longest")
    )
    assert (other.mean, other.resize_mode) == ((0.1, 0.2, 0.3), "longest")
    assert resolve_spec(EncoderSettings(model="ViT-B-32-256", pretrained="datacomp_s34b_b86k")).image_size == (256, 256)


def test_timm_preprocessing() -> None:
    import timm

    for name in ("mobilenetv2_100.ra_in1k", "vit_small_patch14_dinov2.lvd142m"):
        spec = resolve_spec(EncoderSettings(family="timm", model=name))
        published = timm.data.resolve_data_config(pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict())
        assert (spec.mean, spec.std) == (published["mean"], published["std"])
        assert (spec.crop_pct, spec.interpolation) == (published["crop_pct"], published["interpolation"])
        assert spec.image_size == published["input_size"][1:]
        assert f"{spec.model}.{spec.pretrained}" == name
        assert spec.output == "pooled"
    assert resolve_spec(EncoderSettings(family="timm", model="mobilenetv2_100")).pretrained == "ra_in1k"


def test_a_folder_is_known_by_its_content_not_its_place(tiny_clip: Path, tmp_path: Path) -> None:
    spec = resolve_spec(EncoderSettings(checkpoint=str(tiny_clip)))
    weights = tiny_clip / "open_clip_model.safetensors"
    assert spec.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (spec.model, spec.name, spec.dim, spec.image_size) == ("local-dir", "tiny", 12, (32, 32))
    assert (spec.mean, spec.interpolation, spec.resize_mode) == ((0.5, 0.4, 0.3), "bilinear", "shortest")
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in tiny_clip.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert resolve_spec(EncoderSettings(checkpoint=str(moved))).fingerprint == spec.fingerprint
    assert resolve_spec(EncoderSettings(model=f"local-dir:{moved}")).fingerprint == spec.fingerprint
    config = moved / "open_clip_config.json"
    config.write_text(config.read_text().replace('"head_width": 8', '"head_width": 4'))
    assert resolve_spec(EncoderSettings(checkpoint=str(moved))).diff(spec)[0].startswith("model_config")


def test_settings_for_a_spec_resolve_to_it(tiny_clip: Path) -> None:
    for settings in (
        EncoderSettings(checkpoint=str(tiny_clip), normalize=False, quick_gelu=True, mean=[0.1, 0.2, 0.3]),
        EncoderSettings(model="ViT-B-32", pretrained="openai", image_size=336, dtype="bfloat16"),
        EncoderSettings(family="timm", model="mobilenetv2_100.ra_in1k", crop_pct=1.0, normalize=False),
    ):
        spec = resolve_spec(settings)
        assert resolve_spec(settings_for(spec)).diff(spec) == []


def test_package_folders(tmp_path: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package_of_tests"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "models" / "tiny").symlink_to(tiny_clip)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = resolve_spec(EncoderSettings(checkpoint="pkg://some_package_of_tests/models/tiny"))
    assert spec.location == "pkg://some_package_of_tests/models/tiny"
    assert spec.fingerprint == resolve_spec(EncoderSettings(checkpoint=str(tiny_clip))).fingerprint
    assert "no installed package 'nowhere'" in refused(checkpoint="pkg://nowhere/models")


def test_unknown_names_come_with_close_ones(tmp_path: Path, tiny_timm: Path) -> None:
    assert "open_clip has no model 'ViT-B32'. Close to it: ViT-B-32" in refused(model="ViT-B32", pretrained="openai")
    message = refused(model="ViT-B-32", pretrained="opena1")
    assert "no pretrained tag 'opena1' for ViT-B-32. Close to it: openai" in message
    assert "needs weights: set encoder.pretrained to a tag (openai, " in refused(model="ViT-B-32")
    message = refused(family="timm", model="mobilenet_v2_100")
    assert "timm has no model 'mobilenet_v2_100'. Close to it: mobilenetv2_100" in message
    assert "no pretrained tag 'ra_in2k' for mobilenetv2_100. Close to it: ra_in1k" in refused(
        family="timm", model="mobilenetv2_100.ra_in2k"
    )
    assert f"no file or folder {tmp_path}/none" in refused(checkpoint=str(tmp_path / "none"))
    assert f"must hold open_clip_config.json and weights; it holds {tiny_timm.name}" in refused(
        checkpoint=str(tiny_timm.parent)
    )
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 1}}))
    assert "has no weights (looked for open_clip_model.safetensors" in refused(checkpoint=str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert "has no 'model_cfg'" in refused(checkpoint=str(tmp_path))
    assert "no folder /nowhere" in refused(model="local-dir:/nowhere")


def test_a_tag_with_a_local_file_keeps_the_tags_preprocessing(tiny_timm: Path) -> None:
    spec = resolve_spec(EncoderSettings(model="ViT-B-32", pretrained="openai", checkpoint=str(tiny_timm)))
    assert spec.quick_gelu is True
    assert spec.pretrained is None
    assert spec.weights_sha256 == hashlib.sha256(tiny_timm.read_bytes()).hexdigest()


def test_the_memory_is_used_and_knows_when_files_change(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in tiny_clip.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = EncoderSettings(checkpoint=str(folder))
    memo = tmp_path / "memo"
    spec = resolve_spec(settings, memo)
    assert spec == resolve_spec(settings)

    calls = []
    real = resolving.resolve
    monkeypatch.setattr(resolving, "resolve", lambda s: calls.append(s) or real(s))
    again = resolve_spec(replace(settings, name="other", device="cpu", batch_size=1), memo)
    assert not calls
    assert again == replace(spec, name="other")
    resolve_spec(replace(settings, normalize=False), memo)
    assert len(calls) == 1
    weights = folder / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    stat = weights.stat()
    weights.write_bytes(data)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert resolve_spec(settings, memo).fingerprint != spec.fingerprint
    for file in memo.iterdir():
        file.write_text("{}")
    assert isinstance(resolve_spec(settings, memo), EncoderSpec)


def test_a_folder_is_resolved_without_torch(tiny_clip: Path) -> None:
    code = (
        "import sys; from guardtrain.encoders import EncoderSettings, resolve_spec; "
        f"resolve_spec(EncoderSettings(checkpoint={str(tiny_clip)!r})); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
