"""`guardtrain benchmark` with a model that is asked: answers in all wordings are read right, no other figure moves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import f1_score

from guardtrain.benchmarks.importing import read_published, save_published
from guardtrain.benchmarks.kinds import StateDict
from guardtrain.encoders.resolve import resolve_spec
from guardtrain.encoders.spec import EncoderSettings
from tests.benchmarks.chat_endpoint import Endpoint, Scripted, numbered, saying, serving
from tests.benchmarks.spoken import REFUSED, SAFE, UNDECIDED, UNSAFE, unmarked
from tests.benchmarks.test_vision_language import REFUSALS
from tests.benchmarks.tokenised import AGAINST, tokenised

N = 240


@dataclass(frozen=True)
class Asked:
    """An image of the test.

    Args:
        label: 1 is unsafe.
        script: what the model says of it.
        outcome: what becomes of it without and with log-probabilities.
        unsafe: the model's verdict, where there is one.
        p: its probability with log-probabilities; None where that is none.
    """

    label: int
    script: Scripted
    outcome: tuple[str, str]
    unsafe: bool | None = None
    p: float | None = None


def verdict(label: int, marked: str, unsafe: bool, odds: str) -> Asked:
    """One that answers; by `odds` its probability agrees, is on other words, or says otherwise."""
    text, place, word = unmarked(marked)
    if place is None:
        return Asked(label, Scripted(saying(text)), ("answered", "answered"), unsafe)
    value = {"agree": 0.8, "elsewhere": 0.3, "disagree": 0.3}[odds]
    tokens, said = tokenised(text, place, word, odds=value)
    against = {"agree": AGAINST, "elsewhere": 0.9 - value, "disagree": 0.9 - value}[odds]
    if odds == "elsewhere":
        for token in tokens:
            token["top_logprobs"] = token["top_logprobs"][:1]  # and .7 on nobody knows what
    p = {"agree": said / (said + against), "elsewhere": None, "disagree": None}[odds]
    script = Scripted(saying(text), tokens=tokens)
    outcome = ("answered", "undecided" if odds == "disagree" else "answered")
    return Asked(label, script, outcome, unsafe, p if p is None or unsafe else 1 - p)


def images() -> list[Asked]:
    """Half are unsafe, and of those a filter takes away what it looks for; every wording is there."""
    g = random.Random(0)
    wordings = [(marked, True) for marked in UNSAFE] + [(marked, False) for marked in SAFE]
    g.shuffle(wordings)
    odds = ["agree", "agree", "agree", "elsewhere", "disagree"]
    out = [verdict(int(unsafe ^ (g.random() < 0.15)), m, unsafe, odds[i % 5]) for i, (m, unsafe) in enumerate(wordings)]
    kept = [one for one in (*UNDECIDED, *REFUSED) if one.strip()]
    g.shuffle(kept)
    rest = [Asked(1, one, ("refused", "refused")) for one in REFUSALS]
    rest += [Asked(i % 2, Scripted({"error": "overloaded"}, 503), ("no answer", "no answer")) for i in range(4)]
    for text in kept[: N - len(out) - len(rest)]:
        outcome = "refused" if text in REFUSED else "undecided"
        rest.append(Asked(g.randint(0, 1), Scripted(saying(text)), (outcome, outcome)))
    out += rest
    assert len(out) == N
    g.shuffle(out)
    return out


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint(script={i: one.script for i, one in enumerate(images())})) as server:
        yield server


def guard(name: str) -> None:
    """A guard of no worth on the shipped encoder."""
    spec = resolve_spec(EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder"))
    assert spec.dim is not None
    torch.manual_seed(len(name))
    save_file({"weight": torch.randn(1, spec.dim), "bias": torch.zeros(1)}, f"{name}.safetensors")
    read = read_published(StateDict(name=name), Path(f"{name}.safetensors"), spec=spec)
    save_published(Path(name), read, onnx=False)


def figures(folder: str) -> pd.DataFrame:
    frame = pd.read_parquet(f"{folder}/benchmark.parquet")
    return frame.astype({name: object for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)})


def test_every_answer_is_read_right_or_counted_and_no_other_figure_moves(
    run: Callable[..., str], endpoint: Endpoint
) -> None:
    every = images()
    for i, one in enumerate(every):
        folder = Path("photos") / ("unsafe" if one.label else "safe")
        folder.mkdir(parents=True, exist_ok=True)
        numbered(i).save(folder / f"{i}.png")
    Path("photos/safe/broken.png").write_bytes(b"no image")
    guard("mine")
    guard("theirs")
    common = ["data=photos", "replicates=40", "cache_dir=cache", "formats=[]"]
    asked = ["vlm=openai_compatible", "vlm.model=toy", f"vlm.base_url={endpoint.address}", "vlm.retries=1"]
    asked += ["vlm.concurrency=4", "vlm.backoff=0.001"]
    run("benchmark", "guards=[mine,theirs]", *common, "out=without")
    texts = [
        run("benchmark", "guards=[mine,theirs]", *common, *asked, f"vlm.logprobs={logprobs}", f"out=with{at}")
        for at, logprobs in enumerate(("false", "true"))
    ]

    before = figures("without")
    for folder in ("with0", "with1"):
        whole = figures(folder)
        for name in ("mine", "theirs"):
            for kind in ("metric", "shift", "difference"):
                own, alone = (one[(one["guard"] == name) & (one["kind"] == kind)] for one in (whole, before))
                assert len(alone) > 0 or kind == "shift" or name == "mine"
                pd.testing.assert_frame_equal(own.reset_index(drop=True), alone.reset_index(drop=True))

    for at, text in enumerate(texts):
        rows = [row for row in pq.read_table(f"with{at}/scores.parquet").to_pylist() if row["guard"] == "toy"]
        found = {Path(row["id"]).stem: row for row in rows}
        assert found.pop("broken")["outcome"] == "unreadable"
        assert len(found) == N
        for i, one in enumerate(every):
            row = found[str(i)]
            assert row["outcome"] == one.outcome[at], one.script.body
            if one.outcome[at] != "answered":
                assert row["decision"] is None
                continue
            assert row["decision"] == ("unsafe" if one.unsafe else "safe"), one.script.body
            wanted = one.p if at else None
            assert row["probability"] == (wanted and pytest.approx(wanted, abs=1e-3)), one.script.body
        metrics = figures(f"with{at}")
        metrics = metrics[
            (metrics["guard"] == "toy") & (metrics["category"] == "all") & (metrics["judged_on"] == "all")
        ]
        value = metrics[(metrics["kind"] == "metric") & (metrics["metric"] == "f1")].iloc[0]
        judged = [one for one in every if one.outcome[at] == "answered"]
        assert value["value"] == pytest.approx(
            f1_score(*zip(*((one.label, one.unsafe) for one in judged), strict=True))
        )
        assert value["lowest"] < value["value"] < value["highest"]
        counts = Counter((one.outcome[at].replace(" ", "_"), one.label) for one in every)
        told = metrics[metrics["kind"] == "coverage"].set_index("metric")["value"]
        for outcome in ("answered", "undecided", "refused", "no_answer"):
            for label, side in enumerate(("safe", "unsafe")):
                assert told[f"{outcome}_{side}"] == counts[outcome, label]
        line = " ".join(text.split())
        for words in (
            "Verdicts on 'photos'", "refused, unsafe", "with all", "theirs: 1 image of 'photos' could not be read",
            f"{counts['refused', 0] + counts['refused', 1]} refused",
        ):  # fmt: skip
            assert words in line, words
    assert "AUROC is that of one threshold" in " ".join(texts[0].split())
    without = sum(one.outcome[1] == "answered" and one.p is None for one in every)
    total = sum(one.outcome[1] == "answered" for one in every)
    assert f"toy gives {without} of {total} verdicts without a probability" in " ".join(texts[1].split())
    assert "against mine on 'photos'" in texts[0]


def test_a_model_is_judged_alone_and_its_own_question_needs_its_words(
    run: Callable[..., str], endpoint: Endpoint
) -> None:
    for i, one in enumerate(images()[:12]):
        folder = Path("photos") / ("unsafe" if one.label else "safe")
        folder.mkdir(parents=True, exist_ok=True)
        numbered(i).save(folder / f"{i}.png")
    Image.new("RGB", (80, 16)).save("photos/safe/0000.png")
    asked = ["vlm=openai_compatible", "vlm.model=toy", f"vlm.base_url={endpoint.address}", "vlm.retries=0"]
    text = run("benchmark", "data=photos", *asked, "replicates=20", "out=o", "formats=[]", "cache_dir=cache")
    assert "toy" in text
    assert set(pd.read_parquet("o/benchmark.parquet")["guard"]) == {"toy"}
    Path("q.txt").write_text("Is this image safe? Yes or no.")
    text = run("benchmark", "data=photos", *asked, "vlm.prompt=q.txt", "out=o", code=2)
    assert "'vlm.unsafe=[yes]' 'vlm.safe=[no]'" in " ".join(text.split())
    line = ["vlm.unsafe=[no]", "vlm.safe=[yes]"]
    run("benchmark", "data=photos", *asked, "vlm.prompt=q.txt", *line, "replicates=20", "out=p", "formats=[]")
    kept = pd.read_parquet("p/scores.parquet").set_index("id")["decision"].dropna()
    before = pd.read_parquet("o/scores.parquet").set_index("id")["decision"]
    assert {(before[name], one) for name, one in kept.items()} >= {("safe", "safe"), ("unsafe", "unsafe")}
    assert "Name at least one guard" in run("benchmark", "data=photos", "out=o", code=2)
