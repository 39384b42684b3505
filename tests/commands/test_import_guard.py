"""`guardtrain import-guard KIND FILE` from a file to a guard's directory."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from guardtrain.commands.import_guard import as_overrides
from guardtrain.config import build, conf_dir
from guardtrain.encoders.resolve import resolve_spec
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.guards.guard import Guard
from tests.benchmarks.test_importing import write_laion


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["q16", "a b's.p", "out=x"], {"out": "x", "kind": "q16", "file": "a b's.p"}),
        (["kind=q16", "a.p"], {"kind": "q16", "file": "a.p"}),
        (["q16", "file=a.p"], {"kind": "q16", "file": "a.p"}),
        (["out=x"], {"out": "x"}),
    ],
)
def test_kind_and_file_may_be_given_by_their_place(given: list[str], wanted: dict[str, str]) -> None:
    parsed = [OverridesParser.create().parse_override(text) for text in as_overrides(given)]
    assert {one.key_or_group: one.value() for one in parsed} == wanted


def test_a_third_word_and_hydras_flags_stay_as_they_are() -> None:
    assert as_overrides(["--cfg", "job", "q16"]) == ["--cfg", "job", "kind=q16"]
    assert as_overrides(["q16", "a", "b"]) == ["q16", "a", "b"]


@pytest.mark.parametrize("path", sorted((conf_dir() / "kind").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_kind_can_be_built(path: Path) -> None:
    kind = build(yaml.safe_load(path.read_text()), "kind")
    assert isinstance(kind.normalize, bool)
    assert kind.origin.judges


def test_from_a_file_to_a_guard(run) -> None:
    path = write_laion(Path("nsfw.pth"), dim=512)
    text = run("import-guard", "laion_nsfw", str(path), "onnx=false", "out=g", "name=mine")
    for part in ("mine: sexual images and nudity", "512 numbers, unit norm", "licence     mit", "written     g"):
        assert part in text
    guard = Guard.load("g")
    assert (guard.name, guard.spec.model, guard.spec.pretrained) == ("mine", "ViT-B-32", "openai")
    assert (guard.spec.quick_gelu, guard.spec.normalize) == (True, True)
    settings = EncoderSettings(**yaml.safe_load((conf_dir() / "encoder" / "openai_vit_b32.yaml").read_text()))
    assert resolve_spec(settings).fingerprint == guard.spec.fingerprint, "a store of this encoder must be accepted"
    assert guard.spec.name == settings.name


def test_what_cannot_be_imported_says_why(run) -> None:
    assert "KIND is one of laion_nsfw, multiheaded, q16" in run("import-guard", "file=a.p", code=2)
    Path("a.p").write_bytes(pickle.dumps(print))
    assert "a.p is a pickle that holds builtins.print" in run("import-guard", "q16", "a.p", code=2)
    np.save("a.npy", np.zeros((3, 4)))
    assert "two prompts (2, D); it holds (3, 4)" in run("import-guard", "q16", "a.npy", code=2)
    assert "no setting 'kind.scales'. Did you mean 'scale'?" in run(
        "import-guard", "q16", "a.npy", "+kind.scales=3", code=2
    )
