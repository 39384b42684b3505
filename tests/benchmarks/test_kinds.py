"""Importers against forward passes written here, on drawn files and, where they are, on the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.metrics import roc_auc_score

from guardtrain.benchmarks.importing import read_published
from guardtrain.benchmarks.kinds import (
    Q16,
    Kind,
    LaionNsfw,
    MultiHeaded,
    SafetyChecker,
    Sklearn,
    StateDict,
    UniversalFakeDetect,
)
from guardtrain.benchmarks.published import PublishedGuard
from guardtrain.encoders.spec import EncoderSpec, external_spec
from guardtrain.errors import ConfigError, EncoderError, GuardError

HEADS = ("sexual", "violent", "disturbing", "hateful", "political")


def toy_spec(kind: Kind, dim: int) -> EncoderSpec:
    return external_spec({"name": "toy", "normalized": kind.normalize}, dim)


def imported(kind: Kind, path: Path, dim: int) -> PublishedGuard:
    return read_published(kind, path, spec=toy_spec(kind, dim))


def rows(n: int, dim: int, unit: bool) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True) if unit else 10 * x / np.sqrt(dim)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def multiheaded(state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    h = np.maximum(x @ state["0.weight"].T + state["0.bias"], 0)
    h = (h - state["3.running_mean"]) / np.sqrt(state["3.running_var"] + 1e-5) * state["3.weight"] + state["3.bias"]
    return sigmoid(h @ state["4.weight"][0] + state["4.bias"][0])


def laion(state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    h = (x - state["norm.mean"]) / (np.sqrt(state["norm.variance"]) + 1e-10)
    last = max(int(name[7]) for name in state if name.startswith("linear_"))
    for i in range(1, last):
        h = np.maximum(h @ state[f"linear_{i}.weight"].T + state[f"linear_{i}.bias"], 0)
    return sigmoid(h @ state[f"linear_{last}.weight"][0] + state[f"linear_{last}.bias"][0])


def q16(prompts: np.ndarray, x: np.ndarray) -> np.ndarray:
    p = prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
    e = np.exp(100 * x / np.linalg.norm(x, axis=1, keepdims=True) @ p.T)
    return e[:, 1] / e.sum(axis=1)


def state_of(path: Path) -> dict[str, np.ndarray]:
    loaded = torch.load(path, weights_only=True, map_location="cpu")
    return {name: value.double().numpy() for name, value in loaded.items()}


@pytest.mark.data
def test_q16_on_cars(data_dir: Path) -> None:
    guards = [
        read_published(Q16(), data_dir / "heads" / "q16" / name)
        for name in ("prompts_ViT-B-32.p", "q16_prompts_ViT-B-32.npy")
    ]
    assert guards[0].spec.model == "ViT-B-32"
    assert (guards[0].spec.pretrained, guards[0].spec.quick_gelu, guards[0].spec.normalize) == ("openai", True, True)
    cars = np.load(data_dir / "cars" / "car_damage_clip_vitb32.npz")
    x, labels = cars["features"], cars["labels"]
    found = guards[0].probabilities(x)
    prompts = np.load(data_dir / "heads" / "q16" / "q16_prompts_ViT-B-32.npy").astype(np.float64)
    np.testing.assert_allclose(guards[1].probabilities(x), q16(prompts, x.astype(np.float64)), atol=1e-6)
    np.testing.assert_allclose(found, guards[1].probabilities(x), atol=1e-6)
    assert roc_auc_score(labels != "intact", found) == pytest.approx(0.902, abs=5e-4)
    rates = [guards[0].flags(x)[labels == name].mean() for name in ("intact", "dent", "scratch", "wreck")]
    assert rates == pytest.approx([0.000, 0.164, 0.328, 0.372], abs=5e-4)


@pytest.mark.data
def test_laion_nsfw_on_cars_and_food(data_dir: Path) -> None:
    folder = data_dir / "heads" / "laion-nsfw"
    for model, dim in (("ViT-B-32", 512), ("ViT-L-14", 768)):
        path = folder / f"clip_{model}_openai_binary_nsfw_head.pth"
        guard = imported(LaionNsfw(), path, dim)
        x = rows(50, dim, unit=True)
        np.testing.assert_allclose(guard.probabilities(x), laion(state_of(path), x), atol=1e-6)
    guard = imported(LaionNsfw(), folder / "clip_ViT-B-32_openai_binary_nsfw_head.pth", 512)
    cars = np.load(data_dir / "cars" / "car_damage_clip_vitb32.npz")["features"]
    food = np.load(data_dir / "food101" / "food101_10class_clip_vitb32.npz")
    assert guard.flags(cars).mean() == pytest.approx(0.005, abs=5e-4)
    assert not guard.flags(np.concatenate([food["train_features"], food["test_features"]])).any()


@pytest.mark.data
def test_multiheaded_tuned_prompts_and_fake_detection(data_dir: Path) -> None:
    folder, x = data_dir / "heads" / "unsafe-diffusion", rows(50, 768, unit=False)
    each = []
    for name in HEADS:
        each.append(multiheaded(state_of(folder / f"{name}.pt"), x))
        np.testing.assert_allclose(
            imported(MultiHeaded(), folder / f"{name}.pt", 768).probabilities(x), each[-1], atol=1e-6
        )
    np.testing.assert_allclose(imported(MultiHeaded(), folder, 768).probabilities(x), np.max(each, axis=0), atol=1e-6)
    prompts = torch.load(folder / "finetuned_q16_prompts.pt", weights_only=True, map_location="cpu")
    unit = rows(50, 768, unit=True)
    found = imported(Q16(), folder / "finetuned_q16_prompts.pt", 768).probabilities(unit)
    np.testing.assert_allclose(found, q16(prompts.detach().double().numpy(), unit), atol=1e-6)
    path = data_dir / "heads" / "universal-fake-detect" / "fc_weights.pth"
    state = state_of(path)
    found = imported(UniversalFakeDetect(), path, 768).probabilities(x)
    np.testing.assert_allclose(found, sigmoid(x @ state["weight"][0] + state["bias"][0]), atol=1e-6)


def write_multiheaded(folder: Path, dim: int = 6, hidden: int = 4) -> list[dict[str, np.ndarray]]:
    """Five drawn heads in the published layout."""
    states = []
    for seed, name in enumerate(HEADS):
        torch.manual_seed(seed)
        nn = torch.nn
        module = nn.Sequential(
            nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(), nn.BatchNorm1d(hidden), nn.Linear(hidden, 1)
        )
        for _ in range(5):
            module(10 * torch.randn(32, dim))
        torch.save(module.state_dict(), folder / f"{name}.pt")
        states.append(state_of(folder / f"{name}.pt"))
    return states


def test_multiheaded_is_unsafe_if_any_head_says_so(tmp_path: Path) -> None:
    states, x = write_multiheaded(tmp_path), rows(200, 6, unit=False)
    each = [multiheaded(state, x) for state in states]
    np.testing.assert_allclose(imported(MultiHeaded(), tmp_path, 6).probabilities(x), np.max(each, axis=0), atol=1e-6)
    two = imported(MultiHeaded(heads=["hateful", "sexual"]), tmp_path, 6)
    np.testing.assert_allclose(two.probabilities(x), np.maximum(each[0], each[3]), atol=1e-6)
    assert set(two.files) == {"hateful.pt", "sexual.pt"}
    with pytest.raises(ConfigError, match="heads is empty"):
        imported(MultiHeaded(heads=[]), tmp_path, 6)
    with pytest.raises(GuardError, match=r"no file .*funny\.pt"):
        imported(MultiHeaded(heads=["funny"]), tmp_path, 6)


def write_checker(folder: Path, dim: int = 12, safe: bool = True) -> dict[str, torch.Tensor]:
    """A small checkpoint in the layout of Stable Diffusion's safety checker."""
    g = torch.Generator().manual_seed(0)
    state = {
        "concept_embeds": torch.randn(17, dim, generator=g),
        "concept_embeds_weights": 0.3 + 0.2 * torch.rand(17, generator=g),
        "special_care_embeds": torch.randn(3, dim, generator=g),
        "special_care_embeds_weights": torch.full((3,), 0.3),
        "vision_model.vision_model.pre_layrnorm.weight": torch.ones(4),
    }
    config = {"projection_dim": dim, "vision_config": {"patch_size": 14, "image_size": 224, "hidden_size": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    if safe:
        safetensors.torch.save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    return state


@pytest.mark.parametrize("safe", [True, False])
def test_the_safety_checker_decides_as_diffusers_does(tmp_path: Path, safe: bool) -> None:
    state = {name: value.double().numpy() for name, value in write_checker(tmp_path, safe=safe).items()}
    x = rows(300, 12, unit=True)
    guard = imported(SafetyChecker(), tmp_path, 12)

    def cosines(name: str) -> np.ndarray:
        embeds = state[name] / np.linalg.norm(state[name], axis=1, keepdims=True)
        return x @ embeds.T - state[f"{name}_weights"]

    care = (np.round(cosines("special_care_embeds"), 3) > 0).any(axis=1)
    scores = np.round(cosines("concept_embeds") + 0.01 * care[:, None], 3)
    wanted = (scores > 0).any(axis=1)
    assert guard.flags(x).tolist() == wanted.tolist()
    assert 0 < wanted.sum() < len(x)
    assert (wanted != (np.round(cosines("concept_embeds"), 3) > 0).any(axis=1)).any(), "special care must matter here"


def test_a_copy_that_is_no_safety_checker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match=r"must be a folder with config\.json"):
        imported(SafetyChecker(), tmp_path, 12)
    write_checker(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"projection_dim": 12, "vision_config": {"patch_size": 32}}))
    with pytest.raises(GuardError, match="no ViT-L/14"):
        imported(SafetyChecker(), tmp_path, 12)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(GuardError, match="damaged"):
        imported(SafetyChecker(), tmp_path, 12)


def test_state_dicts_described_or_plain(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    safetensors.torch.save_file(module.state_dict(), tmp_path / "head.safetensors")
    x = rows(20, 6, unit=True)
    with torch.no_grad():
        wanted = module.double()(torch.from_numpy(x)).softmax(1)[:, 1].numpy()
    described = StateDict(layers=[{"linear": "0"}, "relu", {"linear": "2"}], name="mine", licence="mit")
    for kind in (StateDict(), described):
        found = imported(kind, tmp_path / "head.safetensors", 6)
        np.testing.assert_allclose(found.probabilities(x), wanted, atol=1e-6)
    assert (found.name, found.origin.licence) == ("mine", "mit")
    with pytest.raises(GuardError, match="no state dict"):
        imported(StateDict(), tmp_path / "head.npy", 6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_models(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = rows(120, 6, unit=True)
    y = (x[:, 0] + 0.2 * x[:, 1] > 0).astype(int)
    mlp = MLPClassifier([5, 4], max_iter=60, random_state=0)
    models = {
        "linear": LogisticRegression(C=100),
        "scaled": make_pipeline(StandardScaler(), LogisticRegression()),
        "half": make_pipeline(StandardScaler(with_mean=False), StandardScaler(with_std=False), LogisticRegression()),
        "mlp": make_pipeline(StandardScaler(), mlp),
        "forest": RandomForestClassifier(5, random_state=0),
    }
    for name, model in models.items():
        model.fit(x + 0.5, y)
        path = tmp_path / f"{name}.skops"
        skops.dump(model, path)
        wanted = model.predict_proba(x)
        for unsafe in (0, 1):
            trusted = ["sklearn.tree._tree.Tree"] if name == "forest" else []
            found = imported(Sklearn(unsafe=unsafe, trusted=trusted), path, 6)
            np.testing.assert_allclose(found.probabilities(x), wanted[:, unsafe], atol=1e-6, err_msg=name)
    with pytest.raises(GuardError, match="RandomForestClassifier is no head of ours"):
        found.scorer.head()
    (tmp_path / "a.skops").write_bytes(b"no zip")
    with pytest.raises(GuardError, match="no skops file"):
        imported(Sklearn(), tmp_path / "a.skops", 6)


def test_a_skops_file_with_other_types_is_refused_by_name(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    x = rows(40, 6, unit=True)
    model = make_pipeline(FunctionTransformer(write_checker), LogisticRegression())
    model.steps[1][1].fit(x, x[:, 0] > 0)
    skops.dump(model, tmp_path / "a.skops")
    with pytest.raises(GuardError, match=r"write_checker.*does not trust"):
        imported(Sklearn(), tmp_path / "a.skops", 6)


def test_embeddings_of_another_kind_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "prompts.npy", np.random.default_rng(0).normal(size=(2, 6)))
    guard = imported(Q16(), tmp_path / "prompts.npy", 6)
    x = rows(5, 6, unit=True)
    other = external_spec({"name": "other", "normalized": True}, 6)
    with pytest.raises(EncoderError, match="name: 'other', not 'toy'"):
        guard.logits(x, other)
    for wrong, words in ((x[:, :5], "reads floating"), (2 * x, "unit norm; row"), (x.astype(int), "reads floating")):
        with pytest.raises(GuardError, match=words):
            guard.logits(wrong)
    with pytest.raises(GuardError, match="NaN"):
        guard.logits(x * np.nan)
    with pytest.raises(EncoderError, match="6 numbers; toy gives 7"):
        read_published(Q16(), tmp_path / "prompts.npy", spec=external_spec({"name": "toy", "normalized": True}, 7))
    with pytest.raises(EncoderError, match="say which"):
        read_published(Q16(), tmp_path / "prompts.npy")
    write_multiheaded(tmp_path)
    raw = imported(MultiHeaded(), tmp_path, 6)
    with pytest.raises(GuardError, match="were scaled to unit norm"):
        raw.logits(x)
    with pytest.raises(EncoderError, match="reads the encoder's features as they are"):
        read_published(MultiHeaded(), tmp_path, spec=guard.spec)
    np.save(tmp_path / "three.npy", np.ones((3, 6)))
    with pytest.raises(GuardError, match="two prompts"):
        imported(Q16(), tmp_path / "three.npy", 6)
