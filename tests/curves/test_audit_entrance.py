"""The entrance of an audit: clues that tell the label unseen, doubted labels, reversed pairs, gaps between groups."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.special import expit
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from guardtrain.curves.audit import clues as clue_module
from guardtrain.curves.audit import readers
from guardtrain.curves.audit.attributes import AttributeScores, gaps
from guardtrain.curves.audit.clues import ROW_ORDER, PartClues, clues, coded
from guardtrain.curves.audit.entrance_report import suspect_rows
from guardtrain.curves.audit.files import DRAWN, NO_FILES, look
from guardtrain.curves.audit.measure import audit_pools
from guardtrain.curves.audit.noise import confident_issues, fit_noise
from guardtrain.curves.audit.permuting import family_p_values, moved_rows, shuffled_labels
from guardtrain.curves.audit.report import audit_rows, audit_text, findings
from guardtrain.curves.audit.settings import AuditSettings
from guardtrain.embeddings import Embeddings, StoreSource
from guardtrain.encoders.spec import external_spec
from guardtrain.records import Records
from guardtrain.scenes import SceneSource
from guardtrain.sources import ImageFolderSource, ParquetImagesSource, WebDatasetSource
from guardtrain.sources.file_facts import file_facts
from guardtrain.training.pools import Pools
from tests.sources.tiny import write_tar

D = 8
SPEC = external_spec({"name": "made up"}, D)


def _encoded(kind: str, size: tuple[int, int] = (24, 16), mode: str = "RGB", seed: int = 0, **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_facts_of_a_file_are_those_it_was_written_with(quality: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    jpeg = _encoded("JPEG", quality=quality, exif=exif)
    facts = file_facts(jpeg)
    assert (facts.format, facts.width, facts.height, facts.mode, facts.exif) == ("JPEG", 24, 16, "RGB", True)
    assert (facts.size, facts.aspect, facts.bytes_per_pixel) == (len(jpeg), 1.5, len(jpeg) / 384)
    assert facts.quality == pytest.approx(quality, abs=1) and len(facts.tables) == 128
    png = file_facts(_encoded("PNG", mode="L"))
    assert (png.format, png.mode, png.exif, png.quality, png.tables) == ("PNG", "L", False, None, ())


def _part(n: int = 300, seed: int = 0, pairs: bool = False, **columns: np.ndarray) -> PartClues:
    labels = np.arange(n) % 2 if pairs else np.random.default_rng(seed).permutation(np.arange(n) % 2)
    return PartClues(labels, np.arange(n) // 2 if pairs else np.arange(n), columns)


def test_auroc_of_a_clue_is_that_of_votes_counted_by_hand() -> None:
    """Each value votes with its share of unsafe images in the other folds; scikit-learn ranks the votes."""
    rng = np.random.default_rng(0)
    n, folds = 240, 4
    labels, codes, fold = rng.integers(0, 2, n), rng.integers(0, 5, n), rng.integers(0, folds, n)
    won = couples = 0.0
    for f in range(folds):
        rest, own = fold != f, fold == f
        overall = labels[rest].mean()
        votes = [
            (labels[rest & (codes == k)].sum() + 2 * overall) / ((rest & (codes == k)).sum() + 2) for k in range(5)
        ]
        weight = labels[own].sum() * (1 - labels[own]).sum()
        won += weight * roc_auc_score(labels[own], np.array(votes)[codes[own]])
        couples += weight
    cells = clue_module._Cells(codes, fold, 5, folds)
    assert cells.auroc(labels[:, None].astype(np.float32))[0] == pytest.approx(won / couples, abs=1e-6)
    # drawn once each, groups are the images as they are; twice each, too
    twice = np.repeat([[1.0, 2.0]], n, axis=0).astype(np.float32)
    np.testing.assert_allclose(cells.resampled(labels, np.arange(n), twice), won / couples, atol=1e-6)


def test_what_tells_the_label_is_found_and_what_does_not_is_not() -> None:
    rng = np.random.default_rng(1)
    part = _part()
    known = (part.labels == 1) != (rng.random(300) < 0.07)  # 93 % of one class
    columns = {
        "format": np.where(known, "PNG", "JPEG").astype(object),
        "width": np.where(part.labels == 1, 512.0, 2 * rng.integers(150, 450, 300) + 1),  # no order, one value
        "bytes": rng.lognormal(10, 1, 300),
        "mode": np.full(300, "RGB", dtype=object),
        ROW_ORDER: np.argsort(np.argsort(part.labels, kind="stable")).astype(float),
    }
    found = {clue.name: clue for clue in clues({"real": PartClues(part.labels, part.groups, columns)})}
    assert found["format"].auroc == pytest.approx(0.93, abs=0.02) and found["format"].stop
    assert found["format"].low < 0.93 < found["format"].high
    assert found["format"].told_by.startswith("PNG: 9")
    assert found["width"].auroc > 0.95 and found["width"].told_by == "512: 100 % of unsafe, 0 % of safe"
    assert not found["bytes"].told
    assert found["mode"].reason == "the same in all: RGB"
    assert found[ROW_ORDER].told and not found[ROW_ORDER].stop  # no guard sees it


def test_of_clean_sets_at_most_one_in_twenty_has_a_line_that_stands_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines together: ten of two parts, of pairs and of single images, correlated as those of files are."""
    monkeypatch.setattr(clue_module, "PERMUTATIONS", 199)
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        parts = {}
        for name, pairs in (("real", False), ("pairs", True)):
            size = rng.lognormal(10, 1, 120)
            kind = rng.choice(["JPEG", "PNG", "WEBP"], 120, p=[0.9, 0.07, 0.03]).astype(object)
            columns = {"bytes": size, "bytes per pixel": size / 1e5, "format": kind}
            columns |= {"width": rng.choice([1.0, 2, 3], 120), "rare": (rng.random(120) < 0.02).astype(float)}
            parts[name] = _part(120, seed, pairs, **columns)
        alarms += any(clue.told for clue in clues(parts, replicates=100, seed=seed))
    assert alarms <= 5  # of 40; 2 are expected, and more than 5 once in a hundred times


def test_numbers_are_put_into_ranges_and_rare_names_together() -> None:
    values = np.concatenate([np.full(50, 512.0), np.arange(950) * 1.5, [np.nan]])
    codes, names = coded(values)
    assert len(set(codes[:50])) == 1 and names[codes[0]] == "512" and names[codes[-1]] == "none"
    inside = codes[50:-1]
    assert (np.diff(inside) >= 0).all() and 14 <= len(set(inside)) <= 16
    _, counts = np.unique(inside, return_counts=True)
    assert counts.min() > 50
    codes, names = coded(np.array([f"camera {i // 3}" for i in range(300)] + ["phone"] * 9, dtype=object))
    assert len(names) == 24 and names[-1] == "others" and names[codes[-1]] == "phone"


def test_permuted_labels_stay_with_their_groups() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 2)
    labels = np.concatenate([np.tile([0, 1], 30), np.repeat([0, 1], 30)])  # 30 pairs, 30 groups of one label
    changed = 0
    for permuted in shuffled_labels(labels, group, 5, rng).reshape(5, 60, 2):
        assert sorted(map(tuple, np.sort(permuted))) == sorted(map(tuple, np.sort(labels.reshape(60, 2))))
        changed += (permuted.ravel() != labels).sum()
    assert changed > 100
    # values that are moved with their labels: a safe image's value stays with a safe image
    values = np.arange(120)
    after = values[moved_rows(group, 1, rng, labels)[0]]
    np.testing.assert_array_equal(labels[after], labels)
    assert (after != values).sum() > 60 and sorted(after) == sorted(values)


def test_p_values_of_a_family_are_not_below_those_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    null, observed = rng.normal(size=(5, 199)) * [[1], [2], [3], [4], [1e-12]], np.array([2.5, 2, 9, 0, 0])
    together = family_p_values(observed, null)
    alone = (1 + (null >= observed[:, None]).sum(axis=1)) / 200
    assert (together >= alone)[:4].all() and together[2] < 0.05 < together[1]


def _readable(n: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D))
    return x.astype(np.float32), (x[:, 0] + x[:, 1] + noise * rng.logistic(size=n) / 3 > 0).astype(np.int64)


def test_readers_are_ridge_and_neighbours_that_never_saw_the_group() -> None:
    x, labels = _readable(90, 0)
    group = np.arange(90) // 2
    fold = np.stack([np.random.default_rng(s).integers(0, 3, 45)[group] for s in (0, 1)])
    scale = np.square(x - x.mean(axis=0)).mean() * 90
    got = readers._linear(x, labels, fold)
    chosen = []
    for s, own in enumerate(fold):
        tried = []
        for strength in readers._STRENGTHS:
            scores = np.empty(90)
            for f in range(3):
                model = Ridge(alpha=strength * scale).fit(x[own != f], 2 * labels[own != f] - 1)
                scores[own == f] = model.predict(x[own == f])
            tried.append(scores)
        errors = [np.square(scores - (2 * labels - 1)).mean() for scores in tried]
        chosen.append(int(np.argmin(errors)) if s == 0 else chosen[0])
        np.testing.assert_allclose(got[s], tried[chosen[0]], atol=1e-3)
    voted = readers._voted(readers._nearest(readers.unit(x), group), labels, fold)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in (0, 17, 89):
        others = np.flatnonzero((fold[1] != fold[1][i]) & (group != group[i]))
        nearest = others[np.argsort(-(unit[others] @ unit[i]))]
        unsafe = labels[nearest[:20]].sum()
        assert voted[1, i] == pytest.approx(np.log((unsafe + 0.5) / (20 - unsafe + 0.5)))


def test_confident_learning_is_that_of_its_paper() -> None:
    """Counted image by image, as section 3 of Northcutt et al. (2021) has it, what is not contradicted left out."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 500)
    probability = expit(3 * (2 * labels - 1) * (1 - 2 * (rng.random(500) < 0.1)) + rng.normal(size=500))
    least = [np.mean(1 - probability[labels == 0]), np.mean(probability[labels == 1])]
    joint = np.zeros((2, 2))
    for label, p in zip(labels, probability, strict=True):
        able = [k for k in (0, 1) if (1 - p, p)[k] >= least[k]]
        if able:
            joint[label, max(able, key=lambda k: (1 - p, p)[k])] += 1
    joint *= np.bincount(labels)[:, None] / joint.sum(axis=1, keepdims=True)
    wanted = set()
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        margin = (2 * probability[rows] - 1) * (1 if label == 0 else -1)
        first = np.argsort(-margin)[: round(joint[label, 1 - label])]
        wanted |= set(rows[first[margin[first] > 0]].tolist())
    assert set(confident_issues(probability, labels).tolist()) == wanted and len(wanted) > 30


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_a_share_of_wrong_labels_is_found_and_clean_overlap_is_not_taken_for_it(share: float) -> None:
    alarms, expected = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores = 2.5 * rng.normal(size=(1000, 1))
        labels = (rng.random(1000) < expit(1.5 * scores[:, 0])).astype(np.int64)
        labels[: int(share * 1000)] ^= 1
        fit = fit_noise(scores, labels)
        alarms += fit.p_value <= 0.05
        expected.append(fit.expected)
    if share:
        assert alarms >= 58 and np.mean(expected) == pytest.approx(50, rel=0.15)
    else:
        assert alarms <= 6  # 3 are expected


def _pools(flipped: float, swapped: float, gap: float = 0.0) -> tuple[Pools, set[str], set[str]]:
    """A real pool with wrong labels and pairs some of which are swapped; attribute b may be read less well."""
    rng = np.random.default_rng(0)
    x, labels = _readable(600, 1, noise=0.2)
    attribute = np.where(rng.random(600) < 0.4, "b", "a value whose name is longer than a column can be")
    x[(attribute == "b") & (labels == 1) & (rng.random(600) < gap), :2] -= 0.8  # unsafe images that look less so
    wrong = rng.permutation(600)[: int(flipped * 600)]
    labels[wrong] ^= 1
    real = Records.from_columns(id=[f"r{i}" for i in range(600)], label=labels, attribute=attribute.tolist())
    halves = rng.normal(size=(200, D)).astype(np.float32)
    both = np.repeat(halves, 2, axis=0)
    apart = np.repeat(rng.uniform(0.05, 1.5, 200), 2)  # some pairs differ clearly, some hardly
    both[:, :2] = 0.3 * both[:, :2] + (apart * np.where(np.arange(400) % 2, 1, -1))[:, None]
    of_pairs = np.arange(400) % 2
    changed = rng.permutation(200)[: int(swapped * 200)]
    of_pairs[np.isin(np.arange(400) // 2, changed)] ^= 1
    names = [f"p{i // 2}" for i in range(400)]
    pairs = Records.from_columns(id=[f"{n}-{i % 2}" for i, n in enumerate(names)], label=of_pairs, pair_id=names)
    tests = {"held_out": Embeddings(real.take(np.arange(0, 60)), x[:60], SPEC)}
    pools = Pools(
        "planted", Embeddings(real.take(np.arange(60, 600)), x[60:], SPEC), Embeddings(pairs, both, SPEC), tests
    )
    return pools, {f"r{i}" for i in wrong}, {f"p{i}" for i in changed}


QUICK = AuditSettings(permutations=1, replicates=100)


def test_planted_wrong_labels_and_swapped_pairs_are_listed() -> None:
    pools, wrong, swapped = _pools(0.05, 0.05)
    audit = audit_pools(pools, QUICK)
    check = {one.part: one for one in audit.checks}
    listed = {doubt.id for part in ("real", "test held_out") for doubt in check[part].images}
    assert check["real"].wrong and len(listed & wrong) >= 0.7 * len(wrong)
    assert len(listed & wrong) >= 0.6 * len(listed)
    reversed_ = {pair.pair_id for pair in check["pairs"].pairs}
    assert check["pairs"].swapped and len(reversed_ & swapped) >= 8 and len(reversed_) < 30
    said = " ".join(findings(audit))
    assert (
        "labels of the real pool look wrong" in said and "About 10 of 200 pairs of the pair pool look swapped" in said
    )
    rows = suspect_rows(audit)
    assert {row["id"] for row in rows if row["part"] == "real"} == {doubt.id for doubt in check["real"].images}
    assert len([row for row in rows if row["kind"] == "pair"]) == 2 * len(reversed_)
    text = audit_text(audit)
    assert max(map(len, text.splitlines())) <= 100
    assert "reversed for all 5 seeds" in text


def test_clean_labels_are_not_doubted_and_hard_images_still_listed() -> None:
    pools, _, _ = _pools(0.0, 0.0)
    audit = audit_pools(pools, QUICK)
    assert not any(check.wrong or check.swapped for check in audit.checks)
    contradicted = [doubt for check in audit.checks for doubt in check.images]
    pairs = [pair for check in audit.checks for pair in check.pairs]
    assert contradicted and len(suspect_rows(audit)) == len(contradicted) + 2 * len(pairs)
    said = " ".join(findings(audit))
    assert "no more than hard images explain" in said and "look wrong" not in said
    assert "No gap between values of 'attribute' is shown" in said
    assert "whether the files tell the label cannot be looked at" in said
    kinds = {row["section"] for row in audit_rows(audit)}
    assert {"unseen", "labels", "attribute"} <= kinds


def test_a_gap_between_groups_is_found() -> None:
    audit = audit_pools(_pools(0.0, 0.0, gap=0.7)[0], QUICK)
    found = [gap for gap in audit.gaps if gap.found]
    assert {gap.measure for gap in found} >= {"recall", "auroc"}
    worse = next(gap for gap in found if gap.value == "b" and gap.measure == "auroc" and gap.part == "real")
    assert worse.low < worse.figure < worse.high < worse.rest
    assert "Not as good for every 'attribute'" in " ".join(findings(audit))
    text = audit_text(audit)
    assert " !" in text and max(map(len, text.splitlines())) <= 100


def test_figures_of_a_group_are_those_of_its_images_alone() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 400)
    logits = rng.normal(size=400) + 1.5 * labels
    values = rng.choice(np.array(["a", "b", None], dtype=object), 400)
    found = {
        (gap.value, gap.measure): gap for gap in gaps({"x": AttributeScores(logits, labels, np.arange(400), values)})
    }
    cut = np.sort(logits[labels == 0])[::-1][int(0.05 * (labels == 0).sum())]
    assert (logits[labels == 0] > cut).mean() <= 0.05
    for value in ("a", "b"):
        own = values == value
        assert found[value, "recall"].figure == pytest.approx((logits[own & (labels == 1)] > cut).mean())
        assert found[value, "fpr"].figure == pytest.approx((logits[own & (labels == 0)] > cut).mean())
        assert found[value, "fpr"].rest == pytest.approx((logits[~own & (labels == 0)] > cut).mean())
        assert found[value, "auroc"].figure == pytest.approx(roc_auc_score(labels[own], logits[own]))
        assert found[value, "auroc"].rest == pytest.approx(roc_auc_score(labels[~own], logits[~own]))
    assert not any(gap.found for gap in found.values())


def _files() -> list[tuple[str, bytes]]:
    """Twenty images of either label, one class of them PNG."""
    return [
        (f"{label}/{i:02}.{ending}", _encoded(kind, seed=i))
        for label, kind, ending in (("safe", "JPEG", "jpg"), ("unsafe", "PNG", "png"))
        for i in range(20)
    ]


@pytest.mark.parametrize("kind", ["folder", "store", "tar", "parquet"])
def test_files_of_any_source_are_looked_at(tmp_path: Path, kind: str) -> None:
    files = _files()
    source: Any
    if kind in ("folder", "store"):
        for name, content in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        source = ImageFolderSource(str(tmp_path))
        if kind == "store":  # embeddings, and the files they were made of are still there
            for folder in ("img_emb", "metadata"):
                (tmp_path / "s" / folder).mkdir(parents=True)
            np.save(tmp_path / "s/img_emb/img_emb_0000.npy", np.ones((40, D), dtype=np.float32))
            table = {"image_path": source.records().image_uris(), "label": source.records().labels}
            pq.write_table(pa.table(table), tmp_path / "s/metadata/metadata_0000.parquet")
            source = StoreSource(str(tmp_path / "s"))
    elif kind == "tar":
        members = []
        for i, (name, content) in enumerate(files):
            members += [(f"{i:04}.jpg", content), (f"{i:04}.cls", str(int("unsafe" in name)).encode())]
        write_tar(tmp_path / "x.tar", members)
        source = WebDatasetSource(str(tmp_path / "x.tar"), index_dir=str(tmp_path / "index"))
    else:
        labels = [int("unsafe" in name) for name, _ in files]
        table = {"id": [f"{99 - i}" for i in range(40)], "image": [c for _, c in files], "label": labels}
        pq.write_table(pa.table(table), tmp_path / "x.parquet")
        source = ParquetImagesSource(str(tmp_path / "x.parquet"))
    records = source.records()
    part = Embeddings(records, np.zeros((len(records), D), dtype=np.float32), SPEC)
    shuffled = part.take(np.random.default_rng(0).permutation(len(records)))
    known, looked = look(shuffled, source)
    assert (looked.n, looked.of, looked.reason, looked.unreadable) == (40, 40, "", 0)
    assert known.columns["format"].tolist() == ["PNG" if label else "JPEG" for label in known.labels]
    sizes = [len(_encoded(kind, seed=i)) for kind in ("JPEG", "PNG") for i in range(20)]  # in the source's order
    assert known.columns["bytes"].tolist() == [sizes[int(i)] for i in known.columns[ROW_ORDER]]
    told = {clue.name: clue for clue in clues({"real": known})}
    assert told["format"].stop and told["width"].reason == "the same in all: 24"


def test_without_files_a_line_says_so() -> None:
    pools, _, _ = _pools(0.0, 0.0)
    assert look(pools.real, None)[1].reason == NO_FILES
    source = SceneSource(pool="real", n=30)
    part = Embeddings(source.records(), np.zeros((30, D), dtype=np.float32), SPEC)
    known, looked = look(part, source)
    assert looked.reason == DRAWN and set(known.columns) == {"source", ROW_ORDER}


def test_unreadable_files_are_counted(tmp_path: Path) -> None:
    for name, content in _files():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"nothing" if name == "safe/03.jpg" else content)
    source = ImageFolderSource(str(tmp_path))
    part = Embeddings(source.records(), np.zeros((40, D), dtype=np.float32), SPEC)
    known, looked = look(part, source, most=30)
    assert looked.n == 30 and known.columns["format"].tolist().count(None) == looked.unreadable <= 1
    assert look(part, source)[1].unreadable == 1
