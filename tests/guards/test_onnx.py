from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import open_clip
import pytest
import torch
from torch import nn

from guardtrain.encoders import load_encoder
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.errors import GuardError
from guardtrain.guards import programs
from guardtrain.guards.calibration import Beta, Identity, Isotonic, Platt, Temperature
from guardtrain.guards.category_head import CategoryHead
from guardtrain.guards.export import export_guard
from guardtrain.guards.guard import Guard
from guardtrain.guards.logits import head_logits
from guardtrain.guards.onnx_export import (
    OnnxDisagrees,
    agreement,
    onnx_judge,
    program_judge,
    save_onnx,
    traced,
    write_onnx,
)
from guardtrain.guards.onnx_graphs import OPSET, head_graph
from guardtrain.guards.programs import export_whole
from guardtrain.guards.settings import CalibrationSettings
from guardtrain.guards.summary import summary_text
from guardtrain.guards.torch_modules import HeadModule, WholeModule, calibrator_module
from guardtrain.guards.validation import Validation
from guardtrain.heads import LinearHead, NeighboursHead, PrototypeHead, TipAdapterFHead, TipAdapterHead, ZeroShotHead
from guardtrain.heads.linear import LinearBank
from guardtrain.heads.mlp import MLPHead
from tests.encoders.conftest import tiny_clip
from tests.encoders.test_crops import five_by_pil
from tests.guards.toys import DIM, toy_bank, toy_images, toy_run, toy_settings, toy_validation
from tests.heads.toys import anchors, toy_data

__all__ = ["tiny_clip"]

pytestmark = pytest.mark.long
CALIBRATORS = [
    Identity(),
    Temperature(3.0),
    Platt(0.4, -1.0),
    Beta(0.5, 2.0, 0.3),
    Isotonic((-2.0, -0.5, 0.25, 3.0), (0.02, 0.4, 0.4, 0.9)),
    Isotonic((0.5,), (0.3,)),
]


def _solved(head) -> nn.Module:
    return head.anchored(anchors(DIM)).solve(toy_data(30, DIM), [1.0])[0]


def _started(head) -> nn.Module:
    data = toy_data(30, DIM)
    bank = head.bank(1, DIM)
    bank.reset([1])
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    bank.fit_input(x, [torch.arange(len(x))])
    bank.start(x, y, [torch.arange(len(x))])
    return bank


HEADS = {  # one of each bank
    "linear": toy_bank,
    "mlp": lambda: _started(MLPHead(hidden=[8, 4])),
    "unit linear": lambda: _solved(ZeroShotHead(scale=5.0)),
    "prototypes": lambda: _started(PrototypeHead(prototypes=3, scale=9.0)),
    "examples": lambda: _solved(TipAdapterHead(scale=5.0)),
    "trained examples": lambda: _started(TipAdapterFHead(scale=5.0).anchored(anchors(DIM))),
    "neighbours": lambda: NeighboursHead(neighbours=5).solve(toy_data(30, DIM), [1.0])[0],
}


def test_every_bank_agrees_with_torch_at_any_batch(tmp_path: Path) -> None:
    """All of them in one program, which takes a fifth of the time of seven."""
    banks = {name: make().eval() for name, make in HEADS.items()}

    class All(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(HeadModule(bank, Platt(0.7, -0.2)) for bank in banks.values())

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            both = [part(x) for part in self.parts]
            return torch.stack([logit for logit, _ in both], 1), torch.stack([p for _, p in both], 1)

    x = toy_data(40, DIM, seed=3).x
    write_onnx(traced(All(), x), tmp_path / "all.onnx", "embeddings")
    judge = onnx_judge(tmp_path / "all.onnx")
    for n in (1, 2, 17, 40):
        logits, found = judge(x[:n])
        for i, (name, bank) in enumerate(banks.items()):
            wanted = head_logits(bank, x[:n])
            np.testing.assert_allclose(logits[:, i], wanted, atol=1e-4, rtol=1e-5, err_msg=f"{name}, {n} rows")
            expected = Platt(0.7, -0.2).probabilities(wanted)
            np.testing.assert_allclose(found[:, i], expected, atol=1e-5, rtol=0, err_msg=f"{name}, {n} rows")
    assert (np.ptp(found, axis=0) > 0.01).all()


def test_every_calibrator_agrees_with_numpys(tmp_path: Path) -> None:
    class All(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(calibrator_module(calibrator) for calibrator in CALIBRATORS)

        def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return logits, torch.stack([part(logits) for part in self.parts], 1)

    logits = np.concatenate([np.linspace(-30, 30, 101), [-2.0, -0.5, 0.25, 3.0, 0.5, 1.5]]).astype(np.float32)
    write_onnx(traced(All(), logits), tmp_path / "all.onnx", "logits")
    _, found = onnx_judge(tmp_path / "all.onnx")(logits)
    for column, calibrator in zip(found.T, CALIBRATORS, strict=True):
        np.testing.assert_allclose(column, calibrator.probabilities(logits), atol=1e-6, rtol=0)


def test_graphs_written_directly_agree_with_torch_and_numpy(tmp_path: Path) -> None:
    """Every bank that is a few products, every calibrator; corners, ties of logits, and rows of zeros."""
    x = np.concatenate([toy_data(40, DIM, seed=3).x, np.zeros((1, DIM), dtype=np.float32)])
    for name in ("linear", "mlp", "unit linear"):
        bank = HEADS[name]().eval()
        wanted = head_logits(bank, x)
        middle = sorted(np.float32(wanted).tolist())[18:22]
        steps = Isotonic((middle[0], *middle, middle[-1]), (0.0, 0.1, 0.2, 0.6, 0.7, 1.0))  # two corners of one logit
        for calibrator in (*CALIBRATORS, steps):
            graph = head_graph(bank, calibrator)
            onnx.checker.check_model(graph, full_check=True)
            assert save_onnx(graph, tmp_path / "head.onnx") == OPSET
            for n in (1, 2, 17, 41):
                logits, found = onnx_judge(tmp_path / "head.onnx")(x[-n:])
                np.testing.assert_allclose(logits, wanted[-n:], atol=2e-5, rtol=0, err_msg=name)
                # at logits of float32, as it has them: between corners that lie close together it is steep
                expected = calibrator.probabilities(logits.astype(np.float64))
                np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0, err_msg=f"{name}, {calibrator}")


def test_a_head_of_another_class_goes_through_torchs_exporter() -> None:
    """Whatever its forward does: a subclass may have changed it."""

    class Own(LinearBank):
        def forward(self, x: torch.Tensor, step_seed: int | None = None) -> torch.Tensor:
            return -super().forward(x, step_seed)

    assert head_graph(LinearBank(1, DIM), Identity()) is not None
    assert head_graph(Own(1, DIM), Identity()) is None
    assert head_graph(HEADS["prototypes"](), Identity()) is None


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard with `head.onnx`."""
    wanted = toy_settings(onnx=True, calibration=CalibrationSettings(kinds=["platt"], replicates=20))
    return export_guard(tmp_path_factory.mktemp("onnx") / "guard", toy_run(), toy_validation(), wanted).guard


def test_the_figures_are_in_config_and_card(exported: Guard) -> None:
    (figure,) = exported.about["agreement"]
    assert figure["file"] == "head.onnx"
    assert figure["batches"] == [1, 2, 17]
    assert figure["difference"] <= figure["tolerance"] == 1e-5
    assert f"{figure['difference']:.1e}" in (exported.path / "README.md").read_text()


def test_nothing_of_this_machine_is_in_the_program(exported: Guard) -> None:
    content = (exported.path / "head.onnx").read_bytes()
    assert os.fsencode(Path(torch.__file__).parent) not in content
    assert os.fsencode(Path(__file__).parents[2]) not in content
    model = onnx.load(exported.path / "head.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


BARE = """
import sys

class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {"numpy", "onnxruntime", "google", "flatbuffers"}:
            raise ModuleNotFoundError(f"barred: {name}", name=name)

sys.meta_path.insert(0, Barred())
import json, pathlib
import numpy, onnxruntime

folder = pathlib.Path(sys.argv[1])
config = json.loads((folder / "config.json").read_text())
points = {point["name"]: point for point in config["operating_points"]["points"]}
session = onnxruntime.InferenceSession(folder / "head.onnx")
embeddings = numpy.array(json.load(sys.stdin), dtype=numpy.float32)
logit, probability = session.run(None, {"embeddings": embeddings})
unsafe = logit >= points["balanced"]["threshold"]
assert not {"torch", "guardtrain", "safetensors", "pandas"} & set(sys.modules)
print(json.dumps({"probability": probability.tolist(), "unsafe": unsafe.tolist()}))
"""


def test_numpy_and_onnxruntime_alone_are_enough(exported: Guard, tmp_path: Path) -> None:
    x, _ = toy_images(30, seed=6)
    command = [sys.executable, "-I", "-c", BARE, str(exported.path)]
    ran = subprocess.run(
        command, input=json.dumps(x.tolist()), capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    found = exported.predict(x, point="balanced")
    np.testing.assert_allclose(said["probability"], found.probabilities, atol=1e-5)
    assert said["unsafe"] == found.flagged.tolist()
    assert 0 < sum(said["unsafe"]) < 30


def beside_a_store(guard: Path, folder: Path, embeddings: np.ndarray) -> Path:
    """A copy of a guard in `folder`, beside embeddings where its card looks for some."""
    store = folder / "stores" / "photos" / "img_emb"
    store.mkdir(parents=True)
    np.save(store / "img_emb_0000.npy", embeddings)
    return Path(shutil.copytree(guard, folder / "guard"))


def test_the_cards_own_example_runs(exported: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (exported.path / "README.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    (example,) = [block for block in blocks if "onnxruntime" in block]
    x, _ = toy_images(9, seed=6)
    monkeypatch.chdir(beside_a_store(exported.path, tmp_path, x))
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["unsafe"].tolist() == exported.predict(x).flagged.tolist()


def test_a_program_that_differs_is_an_error() -> None:
    rows = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]

    def judge(shift: float):
        return lambda x: (x[:, 0], x[:, 0] + shift * (len(x) == 17))  # wrong at one batch size only

    with pytest.raises(OnnxDisagrees, match=r"differs from the guard by 2\.0e-05"):
        agreement("head.onnx", judge(2e-5), judge(0.0), rows, 1e-5)
    assert agreement("head.onnx", judge(5e-6), judge(0.0), rows, 1e-5).difference == pytest.approx(5e-6, rel=0.1)
    with pytest.raises(OnnxDisagrees, match="inf"):
        agreement("head.onnx", judge(np.nan), judge(0.0), rows, 1e-5)
    with pytest.raises(OnnxDisagrees, match="batch of 1"):
        agreement("head.onnx", lambda x: (x, x), judge(0.0), rows, 1e-5)


def test_logits_that_differ_are_an_error_even_where_probabilities_do_not() -> None:
    rows = np.linspace(-50, 50, 20, dtype=np.float32)[:, None]

    def judge(factor: float):
        return lambda x: (factor * x[:, 0], np.full(len(x), 0.5))

    assert agreement("head.onnx", judge(1 + 1e-5), judge(1), rows, 1e-5).logit_difference == pytest.approx(
        5e-4, rel=0.1
    )
    with pytest.raises(OnnxDisagrees, match=r"by 5\.0e-02 in logits \(allowed: 5e-03\)"):
        agreement("head.onnx", judge(1.001), judge(1), rows, 1e-5)


def test_a_probability_is_right_that_the_calibration_gives_for_a_logit_that_agrees() -> None:
    """At a step between two logits that are hardly apart, which of them it is depends on the processor's rounding."""
    step = Isotonic((-1.0, 0.5, 0.5 + 1e-9, 1.0), (0.1, 0.2, 0.7, 0.9))
    rows = np.full((20, 1), 0.5, dtype=np.float32)

    def judge(logit: float, p: float | None = None):
        logits = np.array([logit])
        return lambda x: (np.repeat(logits, len(x)), np.repeat(step.probabilities(logits) if p is None else p, len(x)))

    found = agreement("head.onnx", judge(0.5 + 1e-7), judge(0.5), rows, 1e-5, calibrator=step)
    assert found.difference == pytest.approx(0.5, abs=1e-3) and found.logit_difference == pytest.approx(1e-7)
    for wrong in (0.19, 0.71):
        with pytest.raises(OnnxDisagrees, match="differs from the guard"):
            agreement("head.onnx", judge(0.5, wrong), judge(0.5), rows, 1e-5, calibrator=step)
    with pytest.raises(OnnxDisagrees, match="differs from the guard"):
        agreement("head.onnx", judge(0.5 + 1e-7), judge(0.5), rows, 1e-5)


def test_a_program_of_another_calibration_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an exporter that gets an operator wrong would write: a program that differs on every machine."""
    graph = programs.head_graph
    monkeypatch.setattr(programs, "head_graph", lambda bank, _: graph(bank, Platt(1.5, 0.2)))
    only = CalibrationSettings(kinds=["isotonic"], replicates=2)
    with pytest.raises(OnnxDisagrees, match=r"head\.onnx differs from the guard by .* it is not written"):
        export_guard(tmp_path / "a", toy_run(), toy_validation(), toy_settings(onnx=True, calibration=only))
    assert not list(tmp_path.iterdir())


def test_isotonic_with_a_step_between_two_images_that_are_hardly_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is exported, and where rounding moves an image over the step, it is said how far its probability is off."""
    n = 400
    first = np.concatenate([np.linspace(-0.8, -0.1, n // 2 - 1), [-1e-6, 1e-6], np.linspace(0.1, 0.8, n // 2 - 1)])
    x = np.zeros((n, DIM), dtype=np.float32)
    x[:, 0], x[:, 1] = first, np.sqrt(1 - np.square(first))
    bank = LinearHead().bank(1, DIM).eval()
    with torch.no_grad():
        bank.weight[0, 0, 0] = 10.0
    labels = np.where(first < 0, np.arange(n) % 40 == 0, np.arange(n) % 2 == 0).astype(np.int64)
    validation = Validation(x, labels, np.arange(n).astype(str), np.full(n, None), "a step")
    wanted = toy_settings(onnx=True, calibration=CalibrationSettings(kinds=["isotonic"], replicates=2))
    guard = export_guard(tmp_path / "a", toy_run(bank), validation, wanted).guard
    assert np.ptp(guard.probabilities(x[n // 2 - 1 : n // 2 + 1])) > 0.3
    far = np.abs(first) > 0.09
    _, found = onnx_judge(guard.path / "head.onnx")(x[far])
    np.testing.assert_allclose(found, guard.probabilities(x[far]), atol=1e-4)

    shifted = copy.deepcopy(bank)
    with torch.no_grad():
        shifted.bias += 2e-5  # from one image to the other, and of logits up to 8 still agreement
    graph = programs.head_graph
    monkeypatch.setattr(programs, "head_graph", lambda _, calibrator: graph(shifted, calibrator))
    guard = export_guard(tmp_path / "b", toy_run(bank), validation, wanted).guard
    (figure,) = guard.about["agreement"]
    assert figure["difference"] > 0.3 and figure["logit_difference"] == pytest.approx(2e-5, rel=0.1)
    assert "at a step of the calibration, logits 2e-05" in summary_text(guard)
    assert "at a step of the calibration,\nwhere" in (guard.path / "README.md").read_text()


@pytest.mark.apart
def test_a_vision_transformer_with_categories(tiny_clip: Path, tmp_path: Path) -> None:
    """Attention, class token and positions at any batch, against open_clip's own model."""
    encoder = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), device="cpu"))
    g = np.random.default_rng(0)
    weights = g.normal(size=(4, encoder.dim)).astype(np.float32)
    bank = LinearHead().bank(1, encoder.dim)
    with torch.no_grad():
        bank.weight[0, :, 0] = torch.from_numpy(weights[0])
    head = CategoryHead(tuple("abc"), 5 * weights[1:], np.array([0.5, 0, 0], dtype=np.float32))
    made = export_whole(tmp_path, bank.eval(), Platt(2, 0.3), encoder, onnx=True, program=True, categories=head)
    assert [one.file for one in made] == ["guard.onnx", "guard.pt2"]
    assert all(one.difference <= 1e-4 for one in made)
    inputs = torch.from_numpy(g.normal(size=(5, 3, *encoder.spec.image_size)).astype(np.float32))
    model = open_clip.create_model(f"local-dir:{tiny_clip}").eval()
    with torch.no_grad():
        x = model.encode_image(inputs, normalize=True).numpy().astype(np.float64)
    expected = 1 / (1 + np.exp(-(2 * x @ weights[0] + 0.3)))
    shares = np.exp(x @ head.weight.T + head.bias)
    shares /= shares.sum(1, keepdims=True)
    assert np.ptp(expected) > 0.01 and np.ptp(shares, axis=0).min() > 0.01
    program = program_judge(torch.export.load(tmp_path / "guard.pt2"))
    for judge in (onnx_judge(tmp_path / "guard.onnx"), program):
        _, found, named = judge(inputs.numpy())
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(named, shares, atol=1e-4)


@pytest.mark.apart
def test_an_encoder_that_looks_at_the_corners_too(tiny_clip: Path, tmp_path: Path) -> None:
    encoder = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), crops=5, device="cpu"))
    g = np.random.default_rng(0)
    weight = 5 * g.normal(size=encoder.dim).astype(np.float32)
    bank = LinearHead().bank(1, encoder.dim)
    with torch.no_grad():
        bank.weight[0, :, 0] = torch.from_numpy(weight)
    made = export_whole(tmp_path, bank.eval(), Platt(1, 0.2), encoder, onnx=True, program=False)
    assert [one.file for one in made] == ["guard.onnx"] and made[0].difference <= 1e-4
    inputs = g.normal(size=(3, 3, 32, 32)).astype(np.float32)
    model = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), device="cpu"))
    five = np.stack([model.forward(torch.from_numpy(np.stack(five_by_pil(one, 0.85)))).numpy() for one in inputs])
    mean = five.mean(1) / np.linalg.norm(five.mean(1), axis=1, keepdims=True)
    found = onnx_judge(tmp_path / "guard.onnx")(inputs)[1]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-(mean @ weight + 0.2))), atol=1e-4)
    assert np.ptp(found) > 1e-3


def test_a_half_precision_encoder_has_no_whole_program() -> None:
    encoder = load_encoder(EncoderSettings(checkpoint="pkg://guardtrain/scenes/demo_encoder", dtype="bfloat16"))
    with pytest.raises(GuardError, match="bfloat16"):
        WholeModule(encoder, nn.Identity())
