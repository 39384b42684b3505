"""`guardtrain benchmark guards=[…] data=…` from guards and data to table, figure and report; and what it refuses."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

from guardtrain.benchmarks.effectiveness import Entrant
from guardtrain.benchmarks.importing import read_published, save_published
from guardtrain.benchmarks.kinds import Q16, LaionNsfw, StateDict
from guardtrain.commands.benchmark import as_overrides, trained_on_it
from guardtrain.config import conf_dir
from guardtrain.config_checks import build
from guardtrain.encoders.resolve import resolve_spec
from guardtrain.encoders.spec import EncoderSettings, external_spec
from guardtrain.sources.settings import DataSettings
from tests.benchmarks.test_importing import write_laion
from tests.guards.toys import DIM, SPEC, toy_guard, toy_images

CATEGORIES = np.array(["Sexual", "Hate", "Violence"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guard of one's own, two published ones, and arrays of their encoder with pairs."""
    folder = tmp_path_factory.mktemp("made")
    toy_guard(folder / "mine", name="mine")
    weight = np.random.default_rng(0).normal(size=DIM) + 8 * np.eye(DIM)[0]
    save_file(
        {"weight": torch.tensor(weight[None]).float(), "bias": torch.tensor([-2.0])}, str(folder / "w.safetensors")
    )
    save_published(
        folder / "other", read_published(StateDict(name="other"), folder / "w.safetensors", spec=SPEC), onnx=False
    )
    laion = read_published(LaionNsfw(), write_laion(folder / "nsfw.pth", DIM), spec=SPEC)
    save_published(folder / "nsfw", laion, onnx=False)
    for name, seed in (("a", 1), ("b", 2)):
        x, y = toy_images(200, seed)
        g = np.random.default_rng(seed)
        pair = [""] * 160 + [f"p{i // 2}" for i in range(40)]
        y[160:] = [0, 1] * 20
        sources = np.array(["Laion5B", "Lexica"])[g.integers(0, 2, 200)]
        np.savez(
            folder / f"{name}.npz", x=x, y=y, pair=pair, category=CATEGORIES[g.integers(0, 3, 200)], source=sources
        )
    return folder


def arrays(file: Path, encoder: str = "{name: toy, normalized: true}") -> str:
    keys = "features: x, label: y, category: category, source: source, pair_id: pair"
    return f"{{path: {file}, {keys}, encoder: {encoder}}}"


def test_data_may_be_said_as_elsewhere() -> None:
    assert as_overrides(["guards=a", "data=b", "data_dir=c"]) == ["guards=a", "data_sets=b", "data_dir=c"]


def test_guards_compared_and_not_scored_twice(run: Callable[..., str], made: Path) -> None:
    guards = f"guards=[{made}/mine,{made}/other,{made}/nsfw]"
    unsafe = int(np.load(made / "a.npz")["y"].sum())
    data = f"data={{a: {arrays(made / 'a.npz')}, b: {arrays(made / 'b.npz')}}}"
    text = run("benchmark", guards, data, "replicates=60", "out=o", "in_distribution=[a]")
    for part in (
        "Guards on 'a' (200 images,", "20 pairs)", "laion-nsfw (Sexual)", "From real to generated images on 'b'",
        "Pairs of 'a'", "F1 in and out of distribution", "other against mine on 'a': F1 ",
        "Published F1 in the categories of 'a'", "NSFW_Detector, Lexica [1]", "Guards by source on 'a'",
        "Note: In distribution for mine: a; out of it: b.", "in each source, with intervals: o/report.md",
        "a: 200 images scored by 3 guards\n", f"a: 200 labels, unsafe: 1 ({unsafe}), safe: 0 ({200 - unsafe})\n",
    ):  # fmt: skip
        assert part in text
    frame, scores = pd.read_parquet("o/benchmark.parquet"), pd.read_parquet("o/scores.parquet")
    assert len(pd.read_csv("o/benchmark.csv")) == len(frame)
    assert len(scores) == 2 * 3 * 200
    mine = scores[(scores["guard"] == "mine") & (scores["data"] == "b")]
    flagged = (mine["decision"] == "unsafe") == (mine["label"] == 1)
    place = {"kind": "metric", "guard": "mine", "data": "b", "judged_on": "all", "category": "all", "source": "all"}
    rows = frame[np.logical_and.reduce([(frame[name] == what).to_numpy() for name, what in place.items()])]
    assert rows.set_index("metric")["value"]["accuracy"] == pytest.approx(flagged.mean())
    known = frame[(frame["kind"] == "published") & (frame["versus"] == "laion-nsfw")]
    assert set(known["category"]) == {"Sexual"}
    assert known["origin"].str.contains(r"table 3|2603\.01228").all()
    assert set(frame["kind"]) == {"metric", "difference", "shift", "distribution", "published", "coverage"}
    report = Path("o/report.md").read_text()
    assert "Clopper-Pearson" in report
    assert "](benchmark.png)" in report
    kinds = re.findall(r"`(\w+)`", report.partition("`kind` says what it is")[2].partition("`judged_on`")[0])
    assert {"versus", *frame["kind"].unique()} == set(kinds)
    assert _in_detail(report, "mine by category and source on 'b'") == _in_detail_by_hand(scores, "mine", "b")
    first = Path("o/benchmark.png").read_bytes()
    assert Path("o/benchmark.pdf").read_bytes().startswith(b"%PDF")

    again = run("benchmark", guards, data, "replicates=60", "out=o", "in_distribution=[a]")
    assert "a: 200 images scored by 3 guards, 3 of them before" in again
    pd.testing.assert_frame_equal(pd.read_parquet("o/benchmark.parquet"), frame)
    assert Path("o/benchmark.png").read_bytes() == first, "the same results give the same bytes"
    # another decision is other work, and a guard's own settings are heard
    other = f"guards=[{{path: {made}/mine, name: strict, point: strict}},{made}/nsfw]"
    text = run("benchmark", other, f"data={{a: {arrays(made / 'a.npz')}}}", "replicates=20", "out=o",
               "categories={laion-nsfw: []}", "compare_with=laion-nsfw")  # fmt: skip
    assert "2 guards, 1 of them before" in text
    assert "strict against laion-nsfw on 'a'" in text
    assert "laion-nsfw (Sexual)" not in text


def _in_detail(report: str, caption: str) -> dict[str, tuple[int, int, float]]:
    """Images, unsafe ones and accuracy of each category in each source, from a table of the report."""
    lines = report.partition(f"{caption}. ")[2].partition("\n\n")[2].partition("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    found, category = {}, ""
    for name, *cells in rows:
        category = category if name.startswith("&nbsp;") else name
        row = dict(zip(head[1:], cells, strict=True))
        key = f"{category}/{name.removeprefix('&nbsp;&nbsp;')}"
        found[key] = (int(row["images"]), int(row["unsafe"]), float(row["accuracy"].split()[0]))
    return found


def _in_detail_by_hand(scores: pd.DataFrame, guard: str, data: str) -> dict[str, tuple[int, int, float]]:
    own = scores[(scores["guard"] == guard) & (scores["data"] == data)]
    found = {}
    for category in ("all", *sorted(own["category"].unique())):
        for source in (category, *sorted(own["source"].unique())):
            some = own if category == "all" else own[own["category"] == category]
            some = some if source == category else some[some["source"] == source]
            right = ((some["decision"] == "unsafe") == (some["label"] == 1)).mean()
            found[f"{category}/{source}"] = (len(some), int(some["label"].sum()), round(right, 3))
    return found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["vlm=openai_compatible"], "none is named: vlm.model=NAME"),
        (["data=nowhere.csv"], "nowhere.csv"),
        (["data=nowhere"], "no data config. The data configs are:"),
        (["data=[masks:pears]", "data_dir=x"], "has no part 'pears'; it has: counterfactual, real, pairs"),
        (["guards=[nowhere/guard]"], "nowhere"),
        (["guards=[]"], "Name at least one guard"),
        (["categories={you: [Hate]}"], "categories names 'you'; the guards are mine"),
        (["compare_with=you"], "compare_with is 'you'; the guards are mine"),
        (["reference=nothing"], "reference is 'nothing'; there are"),
        (["in_distribution=[z]"], "in_distribution names 'z'; the data sets are a"),
        (["points={mine: loose}"], "no operating point 'loose'"),
        (["replicates=3"], "at least 20"),
        (["real=[Lexica]", "generated=[lexica]"], "listed as real and as generated"),
        (["data={a: {path: a.npz, colour: red}}"], "data.a.colour"),
        (["data={a: {path: a.npz, features: x, label: y, made_by: me}}"], "made_by is 'me'; it is one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_compared_says_why(
    run: Callable[..., str], made: Path, changes: list[str], message: str
) -> None:
    shutil.copy(made / "a.npz", "a.npz")
    given = {"guards": f"guards={made}/mine", "data": f"data={{a: {arrays(Path('a.npz'))}}}", "out": "out=o"}
    given |= {text.partition("=")[0]: text for text in changes}
    assert message in run("benchmark", *given.values(), code=2)


def test_embeddings_of_another_encoder_are_refused_with_what_differs(run: Callable[..., str], made: Path) -> None:
    text = run("benchmark", f"guards={made}/mine", f"data={{a: {arrays(made / 'a.npz', '{name: else}')}}}", code=2)
    assert "The data set 'a' brings embeddings of else, and the guard mine reads those of toy. Of else nothing" in text
    assert "made_by: toy" in text


def test_guards_on_images_get_embeddings_of_their_own_encoder(run: Callable[..., str], made: Path) -> None:
    """Two encoders, one set of images, of which one is broken: both guards are judged on the others."""
    from guardtrain.scenes import SceneSource

    source = SceneSource("test", 12, seed=3)
    for i in range(12):
        folder = Path("photos") / ("unsafe" if source.records().labels[i] else "safe")
        folder.mkdir(parents=True, exist_ok=True)
        source.image(i).save(folder / f"{i}.png")
    Path("photos/safe/broken.png").write_bytes(b"no image")
    guards = []
    for name, interpolation in (("smooth", "bicubic"), ("rough", "bilinear")):
        settings = EncoderSettings(
            name=name, checkpoint="pkg://guardtrain/scenes/demo_encoder", interpolation=interpolation
        )
        spec = resolve_spec(settings)
        assert spec.dim is not None
        save_file({"weight": torch.randn(1, spec.dim), "bias": torch.zeros(1)}, f"{name}.safetensors")
        save_published(
            Path(name), read_published(StateDict(name=name), Path(f"{name}.safetensors"), spec=spec), onnx=False
        )
        guards.append(name)
    text = run("benchmark", f"guards=[{','.join(guards)}]", "data=photos", "replicates=20", "out=o", "cache_dir=cache")
    assert "photos: embeddings of smooth" in text
    assert "photos: embeddings of rough" in text
    assert "Note: smooth, rough: 1 image of 'photos' could not be read" in " ".join(text.split())
    scores = pd.read_parquet("o/scores.parquet")
    assert scores["outcome"].value_counts().to_dict() == {"answered": 24, "unreadable": 2}
    again = run("benchmark", f"guards=[{','.join(guards)}]", "data=photos", "replicates=20", "out=o", "cache_dir=gone")
    assert "embeddings of" not in again, "nothing is embedded that is scored"


def test_held_out_images_are_those_of_training(run: Callable[..., str], data_dir: Path) -> None:
    """`data=masks` names what `guardtrain train data=masks` held out, and refuses guards on another encoder."""
    from guardtrain.benchmarks.settings import BenchmarkSettings
    from guardtrain.commands.benchmark_data import data_sets
    from guardtrain.embeddings import embed
    from guardtrain.training.pools import HoldOut, make_pools

    (found,) = data_sets(BenchmarkSettings(guards=["g"], data_sets="masks", data_dir=str(data_dir)))
    text = (conf_dir() / "data" / "masks.yaml").read_text().replace("${data_dir}", str(data_dir))
    data = DataSettings(**yaml.safe_load(text))
    pools = {name: embed(build(node, name), None, "x") for name, node in (("real", data.real), ("pairs", data.pairs))}
    wanted = make_pools("masks", pools, {"counterfactual": HoldOut("pairs", groups=120)}, seed=0).tests[
        "counterfactual"
    ]
    assert found.ids == tuple(wanted.records.ids)
    assert (found.name, found.origin, len(found.records)) == ("masks", "masks", 240)
    (pool,) = data_sets(BenchmarkSettings(guards=["g"], data_sets="masks:pairs", data_dir=str(data_dir)))
    assert len(pool.records) == 400
    entrants = [Entrant("mine", trained_on="masks"), Entrant("theirs", trained_on="scenes")]
    assert trained_on_it(found, entrants) == []
    (note,) = trained_on_it(pool, entrants)
    assert "mine was trained on images of 'masks'" in note


def test_on_cars_and_food_the_published_guards_say_what_they_said(run: Callable[..., str], data_dir: Path) -> None:
    """The sanity figures of the shared data: Q16 and LAION's detector on B/32, from their authors' files."""
    heads = data_dir / "heads"
    for name, kind, file in (
        ("q16", Q16(), heads / "q16" / "prompts_ViT-B-32.p"),
        ("nsfw", LaionNsfw(), heads / "laion-nsfw" / "clip_ViT-B-32_openai_binary_nsfw_head.pth"),
    ):
        save_published(Path(name), read_published(kind, file), onnx=False, name=name)
    run(
        "benchmark",
        "guards=[q16,nsfw]",
        "data=[cars:real,food101:real]",
        f"data_dir={data_dir}",
        "replicates=50",
        "out=o",
    )
    frame = pd.read_parquet("o/benchmark.parquet")
    frame = frame[(frame["kind"] == "metric") & (frame["judged_on"] == "all") & (frame["source"] == "all")]
    rows = frame.set_index(["guard", "data", "category", "metric"])["value"]
    assert rows["q16", "cars", "all", "auroc"] == pytest.approx(0.902, abs=5e-4)
    flags = [rows["q16", "cars", name, "flag_rate"] for name in ("intact", "dent", "scratch", "wreck")]
    np.testing.assert_allclose(flags, [0, 0.164, 0.328, 0.372], atol=5e-4)
    assert rows["nsfw", "cars", "all", "flag_rate"] == pytest.approx(0.005, abs=5e-4)
    assert rows["nsfw", "food101", "all", "flag_rate"] == 0


@pytest.mark.parametrize("name", ["cars", "food101"])
def test_shared_embeddings_name_the_encoder_that_published_guards_read(name: str) -> None:
    node = yaml.safe_load((conf_dir() / "data" / f"{name}.yaml").read_text())["real"]["encoder"]
    encoder = EncoderSettings(**yaml.safe_load((conf_dir() / "encoder" / "openai_vit_b32.yaml").read_text()))
    assert external_spec(node, 512).fingerprint == resolve_spec(encoder).fingerprint
