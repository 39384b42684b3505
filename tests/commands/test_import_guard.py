"""`guardtrain import-guard KIND FILE` from a file to a guard's directory."""

from __future__ import annotations

import json
import pickle
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from safetensors.torch import save_file

from guardtrain.commands.import_guard import as_overrides
from guardtrain.config import conf_dir
from guardtrain.config_checks import build
from guardtrain.encoders.resolve import resolve_spec
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.guards.guard import Guard
from guardtrain.guards.hub import stage
from guardtrain.guards.predicting import ImageJudge
from guardtrain.guards.serving.app import described
from guardtrain.guards.serving.service import GuardService
from guardtrain.guards.serving.settings import ServeSettings
from guardtrain.guards.summary import summary_text
from tests.benchmarks.test_importing import write_laion
from tests.guards.serving.conftest import files

__all__ = ["files"]


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
    own = path.stem in ("sklearn", "state_dict")
    assert isinstance(kind.normalize, bool) != own, "what nobody said is not taken for said"
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


def test_commands_that_are_shown_can_be_pasted(run) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(512, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    torch.save(module.state_dict(), "my head.pt")

    def shown(text: str) -> list[list[str]]:
        lines = [shlex.split(line) for line in text.splitlines() if line.startswith("  guardtrain ")]
        assert all(line[:3] == ["guardtrain", "import-guard", "state_dict"] for line in lines)
        return [line[1:] for line in lines]

    layers = shown(run("import-guard", "state_dict", "my head.pt", "onnx=false", "out=g", "name='a b'", code=2))
    assert layers[0][1:] == [
        "state_dict", "my head.pt", "onnx=false", "out=g", "name='a b'", "kind.layers=[{linear: 0},relu,{linear: 2}]"
    ]  # fmt: skip
    (_, other) = shown(run(*layers[0], code=2))
    assert other[-1] == "kind.unsafe=0"
    text = run(*other)
    for part in (
        "classes     unsafe: '0'; safe: '1' (as kind.unsafe says)",
        "assumed     the encoder is openai_vit_b32; encoder=… where it is another",
        "assumed     its 2 outputs go into a softmax",
        "assumed     it reads embeddings of unit norm; kind.normalize=false where it does not",
        "own reading of the file in float64, on 256 drawn embeddings; the program of its authors was not run",
    ):
        assert part in text
    x = np.random.default_rng(0).normal(size=(5, 512))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    with torch.no_grad():
        wanted = module.double()(torch.from_numpy(x)).softmax(1)[:, 0].numpy()
    np.testing.assert_allclose(Guard.load("g").predict(x).probabilities, wanted, atol=1e-5)


def test_what_the_encoders_config_says_of_the_norm_is_taken(run) -> None:
    save_file({"weight": torch.ones(1, 256)}, "a.safetensors")
    given = ("state_dict", "a.safetensors", "encoder=demo", "encoder.normalize=false", "onnx=false", "out=g")
    text = run("import-guard", *given)
    assert (
        "encoder's features as they are; as the encoder's config has it; kind.normalize=true where it does not" in text
    )
    assert Guard.load("g").spec.normalize is False
    assert "the encoder is" not in text
    assert "encoder's config" not in run("import-guard", *given, "kind.normalize=true")
    assert Guard.load("g").spec.normalize is True


def test_an_imported_guard_is_used_as_any_other(run, files: list[bytes]) -> None:
    weight = torch.randn(1, 256, generator=torch.Generator().manual_seed(0))
    save_file({"fc.weight": weight, "fc.bias": torch.zeros(1)}, "mine.safetensors")
    run("import-guard", "state_dict", "mine.safetensors", "encoder=demo", "onnx=false", "out=g")
    Path("a.png").write_bytes(files[0])
    text = run("predict", "guard=g", "a.png", "out=a.jsonl", "progress=null")
    assert "point published" in text
    assert "Judging with the guard mine: 1 images" in text
    assert "Judged 1 images" in text
    guard = Guard.load("g")
    (row,) = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert row["probability"] == pytest.approx(guard.predict(["a.png"]).probabilities[0], abs=1e-5)
    summary = summary_text(guard)
    assert "calibration: identity\n  not measured: there were no validation images" in summary
    assert [line.split() for line in summary.splitlines() if "* published" in line] == [
        ["*", "published", "–", "0.000", ".500", "–", "–", "–"]
    ]
    assert summary.count("no rate of it is known") == 1
    told = described(GuardService(ImageJudge(guard, 1_000_000), ServeSettings(guard="g")))
    assert told.points[0].name == "published"
    assert told.model_dump_json()
    staged = stage(guard.path, dict(guard.about), Path("staged"))
    assert summary_text(Guard.load(staged)).splitlines()[:3] == summary.splitlines()[:3]
    assert "g is a guard already" in run("export", "run=g", code=2)


def test_what_cannot_be_imported_says_why(run) -> None:
    assert "KIND is one of laion_nsfw, multiheaded, nudenet, q16" in run("import-guard", "file=a.p", code=2)
    text = run("import-guard", "q16", code=2)
    assert "Say which file is imported: `guardtrain import-guard q16 FILE`. Q16: two prompts on CLIP" in text
    Path("a.p").write_bytes(pickle.dumps(exec))  # not print, which Ray replaces where it is in use
    assert "a.p is a pickle that holds builtins.exec" in run("import-guard", "q16", "a.p", code=2)
    np.save("a.npy", np.zeros((3, 4)))
    assert "two prompts (2, D); it holds (3, 4)" in run("import-guard", "q16", "a.npy", code=2)
    assert "no setting 'kind.scales'. Did you mean 'scale'?" in run(
        "import-guard", "q16", "a.npy", "+kind.scales=3", code=2
    )
