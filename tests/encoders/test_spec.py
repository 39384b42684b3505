"""Specs and fingerprints: what changes the numbers changes the fingerprint, and nothing else does."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from guardtrain.encoders.spec import EncoderSettings, EncoderSpec, external_spec, require_same, settings_for
from guardtrain.errors import ConfigError, EncoderError

SPEC = EncoderSpec(
    family="open_clip",
    model="ViT-B-32",
    pretrained="openai",
    image_size=(224, 224),
    resize_mode="shortest",
    interpolation="bicubic",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    fill_color=0,
    output="projected",
    quick_gelu=True,
    normalize=True,
    dtype="float32",
    name="openai_vit_b32",
    dim=512,
    versions={"torch": "2.4"},
)
CHANGED: dict[str, Any] = {
    "family": "timm", "model": "ViT-B-16", "pretrained": "laion2b_e16", "weights_sha256": "ab", 
    "image_size": (336, 336),
    "resize_mode": "squash", "interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
    "crop_pct": 0.9, "fill_color": 1, "output": "pooled", "quick_gelu": False, "normalize": False, "dtype": "bfloat16",
    "crops": 5, "crop_share": 0.85,
    "model_kwargs": {"pad_type": "same"}, "model_config": {"embed_dim": 3},
}  # fmt: skip
INFORMATION: dict[str, Any] = {"name": "x", "location": "/x", "dim": None, "versions": {"torch": "9"}}


def test_every_field_is_either_covered_or_information() -> None:
    assert {f.name for f in fields(EncoderSpec)} == CHANGED.keys() | INFORMATION.keys()


@pytest.mark.parametrize("key", CHANGED)
def test_what_changes_the_numbers_changes_the_fingerprint(key: str) -> None:
    other = replace(SPEC, **{key: CHANGED[key]})
    assert other.fingerprint != SPEC.fingerprint
    assert [d.split(":")[0] for d in SPEC.diff(other)] == [key]


@pytest.mark.parametrize("key", INFORMATION)
def test_information_does_not(key: str) -> None:
    other = replace(SPEC, **{key: INFORMATION[key]})
    assert other.fingerprint == SPEC.fingerprint
    assert SPEC.diff(other) == []
    require_same(SPEC, other)


def test_the_fingerprint_is_the_same_on_every_machine_and_day() -> None:
    # A literal: heads in the field carry it, so a change of the canonical form must be noticed.
    assert SPEC.fingerprint == "80314f21e25870b6c6c49e4677c7f9ea9ca80ecd31ad4a119a7c3ba73678663e"


TEXTS = st.text(max_size=5)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        EncoderSpec,
        family=st.sampled_from(["open_clip", "timm", "external", "clip-retrieval"]),
        model=TEXTS,
        pretrained=st.none() | TEXTS,
        image_size=st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999)),
        mean=st.none() | st.tuples(NUMBERS, NUMBERS, NUMBERS),
        crop_pct=st.none() | NUMBERS,
        quick_gelu=st.none() | st.booleans(),
        normalize=st.none() | st.booleans(),
        crops=st.sampled_from([1, 5]),
        crop_share=st.none() | NUMBERS,
        model_kwargs=st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers() | TEXTS, max_size=3),
        dim=st.none() | st.integers(1, 9999),
        versions=st.dictionaries(TEXTS, TEXTS, max_size=2),
    )
)
@settings(max_examples=50, deadline=None)
def test_json_round_trip(spec: EncoderSpec) -> None:
    assert EncoderSpec.from_json(spec.to_json()) == spec


def test_json_that_was_edited_or_is_of_a_newer_version_is_refused() -> None:
    with pytest.raises(EncoderError, match="The encoder spec was edited"):
        EncoderSpec.from_json(SPEC.to_json().replace("bicubic", "bilinear"))
    with pytest.raises(EncoderError, match="does not know: rotation"):
        EncoderSpec.from_dict(SPEC.to_dict() | {"rotation": 1})
    with pytest.raises(EncoderError, match="lacks family"):
        EncoderSpec.from_dict({"model": "x"})
    with pytest.raises(EncoderError, match=r"must be one of open_clip, timm, nudenet, .*; it is 'keras'"):
        EncoderSpec.from_dict({"model": "x", "family": "keras"})
    with pytest.raises(EncoderError, match="is not JSON"):
        EncoderSpec.from_json("{")


def test_another_encoder_is_refused_with_what_differs() -> None:
    with pytest.raises(EncoderError) as caught:
        require_same(replace(SPEC, normalize=False, quick_gelu=False, name="mine"), SPEC, "the head h.safetensors")
    assert str(caught.value) == (
        "The encoder of the head h.safetensors (mine) is not the one wanted (openai_vit_b32). They differ in "
        "quick_gelu: False, not True; normalize: False, not True."
    )


def test_external_specs_compare_all_that_is_said() -> None:
    spec = external_spec({"name": "m", "normalized": False, "layer": 7}, 1280)
    assert (spec.family, spec.name, spec.normalize, spec.dim) == ("external", "m", False, 1280)
    assert spec.model_kwargs == {"layer": 7}
    assert external_spec({"layer": 7, "name": "m", "normalized": False, "dim": 1280}, 1280) == spec
    for other in ({"name": "n"}, {"normalized": True}, {"layer": 8}):
        assert (
            external_spec({"name": "m", "normalized": False, "layer": 7} | other, 1280).fingerprint != spec.fingerprint
        )
    assert external_spec({"name": "m"}, 1280).fingerprint != external_spec({"name": "m"}, 512).fingerprint
    assert external_spec({}, 512).label == "external"


def test_an_external_spec_can_be_a_whole_one() -> None:
    assert external_spec(SPEC.to_dict(), 512) == SPEC
    with pytest.raises(EncoderError, match="256-d, and their encoder is said to give 512"):
        external_spec(SPEC.to_dict(), 256)


def test_settings_for_an_external_encoder_are_refused() -> None:
    with pytest.raises(EncoderError, match="not one that guardtrain can load"):
        settings_for(external_spec({"name": "m"}, 8))


def test_settings_are_a_structured_config() -> None:
    given_settings = EncoderSettings(name="x", model="m", mean=[0.1, 0.2, 0.3], model_kwargs={"pad_type": "same"})
    assert OmegaConf.to_object(OmegaConf.structured(given_settings)) == given_settings


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("family", "keras", "must be one of open_clip, timm, nudenet; it is 'keras'"),
        ("output", "logits", "must be one of projected, pooled"),
        ("dtype", "float16", "must be one of auto, float32, bfloat16"),
        ("resize_mode", "crop", "must be one of shortest, squash, longest"),
        ("interpolation", "nearest", "must be one of bicubic, bilinear; it is 'nearest'"),
        ("mean", [0.5], "three numbers"),
        ("crop_pct", 0.9, "open_clip preprocessing has none"),
        ("image_size", 0, "at least 1; it is 0"),
        ("crops", 3, "must be one of 1, 5; it is 3"),
        ("crop_share", 1.0, "between 0 and 1; it is 1.0"),
        ("model", "", "must name a model"),
    ],
)
def test_settings_outside_the_allowed_are_named(key: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EncoderSettings(**({"model": "ViT-B-32"} | {key: value})).check()
    assert f"encoder.{key}" in str(caught.value)
    assert said in str(caught.value)


def test_timm_interpolations_and_crop() -> None:
    EncoderSettings(family="timm", model="m", interpolation="nearest", crop_pct=1.0).check()
    with pytest.raises(ConfigError, match=r"must lie in \(0, 1\]; it is 1.5"):
        EncoderSettings(family="timm", model="m", crop_pct=1.5).check()
