"""Importers against forward passes written here, on drawn files and, where they are, on the published ones."""

from __future__ import annotations

import json
import pickle
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
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
from guardtrain.benchmarks.scoring import Layers
from guardtrain.benchmarks.unsaid import Unsaid
from guardtrain.encoders.spec import EncoderSpec, external_spec
from guardtrain.errors import ConfigError, EncoderError, GuardError
from guardtrain.sources.cells import text_of

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


def test_a_state_dict_says_neither_its_activations_nor_its_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    path = tmp_path / "head.safetensors"
    safetensors.torch.save_file(module.state_dict(), path)
    x = rows(20, 6, unit=True)
    with torch.no_grad():
        logits = module.double()(torch.from_numpy(x))
    layers = [{"linear": "0"}, "gelu", {"linear": "2"}]
    with pytest.raises(Unsaid, match="2 linear layers, and a state dict does not say what stands between"):
        imported(StateDict(unsafe=1), path, 6)
    with pytest.raises(Unsaid, match="2 outputs, numbered from 0") as refused:
        imported(StateDict(layers=layers), path, 6)
    assert refused.value.settings == ("kind.unsafe=1", "kind.unsafe=0")
    for unsafe in (0, 1):
        found = imported(StateDict(layers=layers, unsafe=unsafe, name="mine", licence="mit"), path, 6)
        np.testing.assert_allclose(found.probabilities(x), logits.softmax(1)[:, unsafe].numpy(), atol=1e-6)
        assert found.classes == f"unsafe: '{unsafe}'; safe: '{1 - unsafe}' (as kind.unsafe says)"
        assert "its 2 outputs go into a softmax; layers=[…,sigmoid] if not" in found.assumed
        apart = imported(StateDict(layers=[*layers, "sigmoid"], unsafe=unsafe), path, 6)
        np.testing.assert_allclose(apart.probabilities(x), logits.sigmoid()[:, unsafe].numpy(), atol=1e-6)
    assert (found.name, found.origin.licence) == ("mine", "mit")
    for wrong, words in ((2, "names '2'.* tells '0', '1' apart"), ([0, 1], "names all of the classes '0', '1'")):
        with pytest.raises(ConfigError, match=words):
            imported(StateDict(layers=layers, unsafe=wrong), path, 6)
    with pytest.raises(GuardError, match="no state dict"):
        imported(StateDict(), tmp_path / "head.npy", 6)


def test_of_one_output_a_high_one_is_unsafe_unless_it_is_turned_round(tmp_path: Path) -> None:
    torch.save({"weight": torch.arange(1.0, 7)[None], "bias": torch.ones(1)}, tmp_path / "a.pt")
    x = rows(20, 6, unit=True)
    wanted = sigmoid(x @ np.arange(1.0, 7) + 1)
    found = imported(StateDict(), tmp_path / "a.pt", 6)
    np.testing.assert_allclose(found.probabilities(x), wanted, atol=1e-6)
    assert found.classes == "unsafe: above 0 of its one output"
    assert "a high output means unsafe; kind.unsafe=0 where a low one does" in found.assumed
    assert [one for one in found.assumed if "reads embeddings of unit norm; kind.normalize=false" in one]
    turned = imported(StateDict(unsafe=0, normalize=True), tmp_path / "a.pt", 6)
    np.testing.assert_allclose(turned.probabilities(x), 1 - wanted, atol=1e-6)
    assert turned.classes == "unsafe: below 0 of its one output"
    assert not [one for one in turned.assumed if "output" in one or "norm" in one]


def test_several_outputs_are_added(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(6, 5)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    x = rows(20, 6, unit=True)
    with pytest.raises(Unsaid, match=r"5 outputs.*\n  kind.unsafe=4\n(.*\n)*Several: kind.unsafe=\[1,2\]"):
        imported(StateDict(), tmp_path / "a.pt", 6)
    found = imported(StateDict(unsafe=[1, 3, 4]), tmp_path / "a.pt", 6)
    with torch.no_grad():
        shares = module.double()(torch.from_numpy(x)).softmax(1).numpy()
    np.testing.assert_allclose(found.probabilities(x), shares[:, [1, 3, 4]].sum(1), atol=1e-6)


@pytest.mark.parametrize(
    ("names", "unsafe"),
    [
        (("sfw", "nsfw"), "nsfw"), (("safe", "unsafe"), "unsafe"), (("SAFE", "Bad"), "Bad"),
        (("normal", "nsfw"), "nsfw"), (("neutral", "drastic"), "drastic"), (("benign", "harmful"), "harmful"),
        ((0, 1), 1), ((False, True), True), ((-1, 1), 1), ((0.0, 1.0), 1.0), (("0", "1"), "1"),
        (("zzz_sfw", "nsfw"), None), (("real", "fake"), None), ((1, 2), None), (("safe", "neutral"), None),
        (("no", "yes"), None),
    ],
)  # fmt: skip
def test_the_unsafe_class_is_found_by_its_name_or_asked_for(
    tmp_path: Path, names: tuple[Any, Any], unsafe: Any
) -> None:
    """scikit-learn sorts classes by name, so that 'nsfw' comes before 'sfw', and 'safe' before 'unsafe'."""
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression

    x = rows(80, 6, unit=True)
    bad = x[:, 0] > 0
    model = LogisticRegression(C=100).fit(x, np.where(bad, names[1], names[0]))  # the second one is the unsafe one
    skops.dump(model, tmp_path / "a.skops")
    wanted = model.predict_proba(x)[:, list(model.classes_).index(names[1])]
    if unsafe is None:
        with pytest.raises(Unsaid, match="these names do not say which of the two is unsafe") as refused:
            imported(Sklearn(), tmp_path / "a.skops", 6)
        parsed = [OverridesParser.create().parse_override(one).value() for one in refused.value.settings]
        assert sorted(map(text_of, parsed)) == sorted(map(text_of, names))
        given = next(one for one in parsed if text_of(one) == text_of(names[1]))
        found = imported(Sklearn(unsafe=given), tmp_path / "a.skops", 6)
        assert f"unsafe: '{names[1]}'" in found.classes
    else:
        found = imported(Sklearn(), tmp_path / "a.skops", 6)
        assert f"unsafe: '{text_of(unsafe)}'" in found.classes
        assert "says so" in found.classes
    np.testing.assert_allclose(found.probabilities(x), wanted, atol=1e-6)
    assert roc_auc_score(bad, found.probabilities(x)) > 0.95


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_classes_of_many_and_what_is_no_classifier(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import LinearSVC

    x = rows(120, 6, unit=True)
    y = np.array(["drawing", "hentai", "neutral", "porn"])[(x[:, 0] > 0) + 2 * (x[:, 1] > 0)]
    mlp = MLPClassifier([5], activation="tanh", max_iter=200, random_state=0)
    for model in (LogisticRegression(C=100).fit(x, y), mlp.fit(x, y)):
        path = tmp_path / f"{type(model).__name__}.skops"
        skops.dump(model, path)
        with pytest.raises(Unsaid, match="4 classes apart: 'drawing', 'hentai', 'neutral', 'porn'") as refused:
            imported(Sklearn(), path, 6)
        assert refused.value.settings == ("kind.unsafe=[drawing,hentai,porn]",)
        found = imported(Sklearn(unsafe=["porn", "hentai"]), path, 6)
        assert isinstance(found.scorer, Layers)
        np.testing.assert_allclose(found.probabilities(x), model.predict_proba(x)[:, [1, 3]].sum(1), atol=1e-9)
    # one against the rest is no softmax, so its layers are not taken
    rest = OneVsRestClassifier(LogisticRegression()).fit(x, y)
    skops.dump(rest, path)
    found = imported(Sklearn(unsafe="porn"), path, 6)
    np.testing.assert_allclose(found.probabilities(x), rest.predict_proba(x)[:, 3], atol=1e-9)
    both = MLPClassifier([3], max_iter=20, random_state=0).fit(x, np.stack([x[:, 0] > 0, x[:, 1] > 0], axis=1))
    for model, words in (
        (both, "several answers an image"),
        (LinearSVC().fit(x, y), "gives no probabilities"),
        (LogisticRegression(), "a fitted classifier is needed"),
    ):
        skops.dump(model, path)
        with pytest.raises(GuardError, match=words):
            imported(Sklearn(), path, 6)


def test_a_scaler_tells_whether_embeddings_had_unit_norm(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for unit in (True, False):
        x = rows(120, 6, unit)
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, np.where(x[:, 0] > 0, "nsfw", "sfw"))
        skops.dump(model, tmp_path / "a.skops")
        spec = external_spec({"name": "toy", "normalized": unit}, 6)
        found = read_published(Sklearn(), tmp_path / "a.skops", spec=spec)
        assert found.assumed == ()
        np.testing.assert_allclose(found.probabilities(x), model.predict_proba(x)[:, 0], atol=1e-6)
        with pytest.raises(GuardError, match="but its scaler was fitted on embeddings of length"):
            read_published(Sklearn(normalize=not unit), tmp_path / "a.skops", spec=spec)


@pytest.mark.parametrize("name", ["a b's.joblib", "a.pkl", "compressed.joblib", "renamed.skops"])
def test_a_pickle_is_not_read_and_the_lines_that_are_shown_make_skops_of_it(tmp_path: Path, name: str) -> None:
    pytest.importorskip("skops.io")
    import joblib
    from sklearn.linear_model import LogisticRegression

    x = rows(60, 6, unit=True)
    model = LogisticRegression().fit(x, np.where(x[:, 0] > 0, "nsfw", "sfw"))
    path = tmp_path / name
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(model))
    else:
        joblib.dump(model, path, compress=3 if name == "compressed.joblib" else 0)
    with pytest.raises(GuardError, match="is a pickle") as refused:
        imported(Sklearn(), path, 6)
    _, write, again = str(refused.value).splitlines()
    python, option, code = shlex.split(write)
    assert (python, option) == ("python", "-c")
    before = path.read_bytes()
    exec(code)
    assert path.read_bytes() == before
    given = OverridesParser.create().parse_override(shlex.split(again)[-1])
    assert shlex.split(again)[:3] == ["guardtrain", "import-guard", "sklearn"]
    found = imported(Sklearn(), Path(given.value()), 6)
    np.testing.assert_allclose(found.probabilities(x), model.predict_proba(x)[:, 0], atol=1e-6)


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
