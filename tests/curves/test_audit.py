"""The audit's figures against other ways of computing them, and against data whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GroupKFold, cross_val_score

from guardtrain.curves.audit import duplicates, permuting, readout, stacked
from guardtrain.curves.audit.duplicates import near_duplicates
from guardtrain.curves.audit.geometry import mean_cosine, pair_geometry, unit
from guardtrain.curves.audit.measure import Audit, Question, association, audit_pools
from guardtrain.curves.audit.readout import readability
from guardtrain.curves.audit.report import audit_rows, audit_text, findings
from guardtrain.curves.audit.settings import AuditSettings
from guardtrain.curves.audit.stacked import StackedRows
from guardtrain.embeddings import Embeddings
from guardtrain.embeddings.rows import MatrixFile, StoredRows
from guardtrain.encoders.spec import external_spec
from guardtrain.errors import ConfigError, DataError
from guardtrain.records import Records
from guardtrain.training.pools import Pools

QUICK = {"permutations": 3, "replicates": 200}
D = 12


def _x(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, D))


def test_readability_is_scikit_learns_cross_validated_auroc() -> None:
    x = _x(600)
    groups = np.arange(600) // 3
    has = x[:, 0] + x[:, 1] + 2 * np.random.default_rng(1).normal(size=600) > 0.8
    reference = LogisticRegression(class_weight="balanced", C=0.1)
    scores = cross_val_score(reference, x, has, groups=groups, cv=GroupKFold(5), scoring="roc_auc")
    got = readability(x, has, groups, **QUICK)
    assert got.auroc == pytest.approx(scores.mean(), abs=0.02)
    assert got.low < got.auroc < got.high
    assert (got.n_with, got.n_without, got.n_groups) == (int(has.sum()), int((~has).sum()), 200)


def test_interval_is_about_that_of_hanley_and_mcneil() -> None:
    x = _x(1000, 3)
    has = x[:, 0] + 1.5 * np.random.default_rng(4).normal(size=1000) > 0
    got = readability(x, has, np.arange(1000), permutations=1, replicates=2000)
    a, n, m = got.auroc, got.n_with, got.n_without
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m))
    assert got.high - got.low == pytest.approx(2 * 1.96 * error, rel=0.2)


def test_groups_are_never_split() -> None:
    """Images of a group are copies, and nothing but the group tells the property: a split group would be recognised."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 60))
    groups = np.repeat(np.arange(40), 5)
    got = readability(centres[groups], rng.permutation(np.arange(40) % 2 == 0)[groups], groups, **QUICK)
    assert got.auroc < 0.8
    split = readability(centres[groups], (groups % 2 == 0), np.arange(200), **QUICK)
    assert split.auroc > 0.99


def test_what_is_not_there_is_not_read() -> None:
    rng = np.random.default_rng(5)
    results = [readability(_x(300, s), rng.random(300) < 0.3, np.arange(300), **QUICK) for s in range(8)]
    assert np.mean([r.auroc for r in results]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([r.chance for r in results]) == pytest.approx(0.5, abs=0.04)
    assert sum(r.readable for r in results) <= 1
    x = _x(300)
    clear = readability(x, x[:, 0] > 0.5, np.arange(300), **QUICK)
    assert clear.readable
    assert clear.p_value == 1 / 4  # none of three permutations, itself counted


def test_one_question_of_many_does_not_stand_out_by_chance() -> None:
    faint = readout.Readout(auroc=0.54, low=0.503, high=0.577, chance_high=0.53)
    clear = readout.Readout(auroc=0.7, low=0.66, high=0.74, chance_high=0.53)
    nothing = [readout.Readout(auroc=0.5, low=0.46, high=0.54, chance_high=0.53)] * 12
    assert faint.readable and readout.corrected([faint])[0].readable
    judged = readout.corrected([faint, clear, *nothing, readout.Readout(reason="all 9 are edited")])
    assert [r.readable for r in judged] == [False, True] + [False] * 13


@pytest.mark.parametrize(
    ("has", "reason"),
    [
        (np.ones(50, bool), "all 50 are edited"),
        (np.zeros(50, bool), "all 50 are unedited"),
        (np.arange(50) < 3, "only 3 groups edited, 10 are needed"),
        (np.arange(50) > 0, "only 1 group unedited, 10 are needed"),
        (np.zeros(0, bool), "there are no images"),
    ],
)
def test_what_cannot_be_tested_says_why(has: np.ndarray, reason: str) -> None:
    got = readability(_x(len(has)), has, np.arange(len(has)), words=("edited", "unedited"))
    assert got.reason == reason
    assert not got.tested
    assert not got.readable
    assert np.isnan(got.auroc)


def test_many_images_of_few_groups_are_few() -> None:
    got = readability(_x(100), np.arange(100) < 50, np.arange(100) // 25)
    assert got.reason.startswith("only 2 groups")


def test_wrong_shapes_and_values_are_refused() -> None:
    with pytest.raises(DataError, match=r"takes \(N, D\)"):
        readability(_x(5), np.ones(4, bool), np.arange(5))
    x = _x(60)
    x[3, 2] = np.nan
    with pytest.raises(DataError, match="not finite"):
        readability(x, np.arange(60) % 2 == 0, np.arange(60))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 80), st.floats(0.05, 0.95))
def test_a_subsample_keeps_groups_whole_and_the_rarer_side(seed: int, most: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    group = np.unique(rng.integers(60, size=150), return_inverse=True)[1]
    has = (rng.random(group.max() + 1) < share)[group]
    rows = readout._subsample(has, group, most, rng)
    assert len(np.unique(rows)) == len(rows)
    chosen = set(group[rows].tolist())
    assert len(rows) == np.isin(group, list(chosen)).sum()
    largest = np.bincount(group).max()
    assert len(rows) <= most + 2 * largest
    rarer = min(has.sum(), (~has).sum())
    assert min(has[rows].sum(), (~has[rows]).sum()) >= min(rarer, most // 2) - largest * (rarer == 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=12), st.integers(0, 999))
def test_permutations_move_whole_groups(blocks: list[list[bool]], seed: int) -> None:
    group = np.repeat(np.arange(len(blocks)), [len(b) for b in blocks])
    has = np.array([value for block in blocks for value in block])
    shuffle = np.random.default_rng(seed).permutation(len(has))
    place = np.argsort(shuffle)  # images of a group need not stand together
    rows = permuting.moved_rows(group[shuffle], 1, np.random.default_rng(seed))[0]
    moved = has[shuffle][rows][place]
    after = [moved[group == g].tolist() for g in range(len(blocks))]
    assert [len(b) for b in after] == [len(b) for b in blocks]
    assert sorted(map(sorted, after)) == sorted(map(sorted, blocks))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=60))
def test_association_is_scipys(rows: list[tuple[int, bool]]) -> None:
    labels, edited = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    got = association("x", labels, edited)
    table = np.array([[((labels == a) & (edited == b)).sum() for b in (0, 1)] for a in (0, 1)])
    assert got.counts == tuple(table.ravel().tolist())
    if not (table.sum(0).all() and table.sum(1).all()):
        assert np.isnan(got.cramers_v)
        return
    assert got.cramers_v == pytest.approx(np.sqrt(chi2_contingency(table, correction=False)[0] / len(rows)), abs=1e-9)
    auroc = roc_auc_score(labels, edited)
    assert got.auroc == pytest.approx(max(auroc, 1 - auroc))
    t = table + 0.5
    assert got.odds == pytest.approx((t[0, 1] / t[1, 1]) / (t[0, 0] / t[1, 0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=8), st.integers(0, 99))
def test_mean_cosine_is_that_of_all_couples(weights: list[int], seed: int) -> None:
    x = unit(_x(len(weights), seed))
    got = mean_cosine(x, np.array(weights, float)[:, None])[0]
    cosine = cosine_similarity(x)
    couples = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
    total = sum(weights[i] * weights[j] for i, j in couples)
    if not total:
        assert np.isnan(got)
        return
    assert got == pytest.approx(sum(weights[i] * weights[j] * cosine[i, j] for i, j in couples) / total)


def test_geometry_of_pairs_that_are_known() -> None:
    rng = np.random.default_rng(0)
    safe = rng.normal(size=(80, 30))
    step = np.zeros(30)
    step[0] = 1.0
    noise = 0.05 * rng.normal(size=(80, 30))
    same = pair_geometry(safe, safe + step + noise, real_direction=step)
    assert same.consistency > 0.8
    assert same.consistency_low < same.consistency < same.consistency_high
    assert same.with_real > 0.99
    assert same.found > 0.95
    assert same.unpaired < 0.1  # the images differ by far more than the step
    both = cosine_similarity(safe, safe + step + noise)
    assert same.within == pytest.approx(np.diag(both).mean())
    assert same.between == pytest.approx(both[~np.eye(80, dtype=bool)].mean())
    none = pair_geometry(safe, rng.normal(size=(80, 30)))
    assert abs(none.consistency) < 0.05
    assert np.isnan(none.with_real)
    # each category has a direction of its own
    kinds = np.arange(80) % 4
    split = pair_geometry(safe, safe + np.eye(30)[kinds] + noise, np.array(list("abcd"), dtype=object)[kinds])
    assert split.same_category > 0.8
    assert split.consistency < 0.35


def test_near_duplicates_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    x, y = _x(50), _x(30, 1)
    y[4], y[9], y[10] = 3 * x[7], x[22] + 0.001, x[7]
    ids = np.array([f"a{i}" for i in range(50)]), np.array([f"b{i}" for i in range(30)])
    got = near_duplicates(("a", ids[0], x), ("b", ids[1], y), threshold=0.99)
    cosine = cosine_similarity(x, y)
    expected = {(f"a{i}", f"b{j}") for i, j in zip(*np.nonzero(cosine > 0.99), strict=True)}
    assert {couple[:2] for couple in got.couples} == expected == {("a7", "b4"), ("a22", "b9"), ("a7", "b10")}
    assert (got.n_couples, got.n_of_b) == (3, 3)
    assert got.nearest[2] == pytest.approx(1)
    assert near_duplicates(("a", ids[0], x), ("b", ids[1], y), threshold=0.99, kept=1).n_couples == 3
    none = near_duplicates(("a", ids[0][30:40], x[30:40]), ("b", ids[1][20:], y[20:]), threshold=0.99)
    assert none.couples == ()
    assert none.nearest[2] == pytest.approx(cosine[30:40, 20:].max(), abs=1e-6)
    drawn = near_duplicates(("a", ids[0], x), ("b", ids[1], y), most=10)
    assert (drawn.n_a, drawn.of_a, drawn.n_b, drawn.of_b) == (10, 50, 10, 30)


def test_a_samples_couples_are_a_lower_bound_and_tell_how_many_to_expect() -> None:
    """Twelve images of `b` are copies of one of `a` each, one of them of forty: the whole has 51 couples."""
    x, y = _x(120), _x(60, 1)
    y[:12] = x[:12]
    x[60:99] = x[0]
    ids = np.array([f"a{i}" for i in range(120)]), np.array([f"b{i}" for i in range(60)])
    whole = near_duplicates(("a", ids[0], x), ("b", ids[1], y))
    assert not whole.sampled
    assert (whole.n_couples, whole.n_of_b, whole.expected_couples) == (51, 12, 51)
    drawn = [near_duplicates(("a", ids[0], x), ("b", ids[1], y), most=40, seed=seed) for seed in range(400)]
    assert all(d.sampled and d.n_couples <= 51 and d.n_of_b <= 12 for d in drawn)
    expected = np.array([d.expected_couples for d in drawn])
    assert expected.mean() == pytest.approx(51, abs=4 * expected.std() / np.sqrt(len(drawn)))


def _pools(trace: float, domain: float = 0.0, edited: str = "safe", leak: bool = False) -> Pools:
    """A real pool and pairs one side of which is edited, with the editor's trace in one dimension."""
    rng = np.random.default_rng(0)
    spec = external_spec({"name": "made up"}, D)

    def part(name: str, pairs: bool, n: int, edits: bool) -> Embeddings:
        label = np.arange(n) % 2
        x = rng.normal(size=(n, D))
        if pairs:
            x[1::2] = x[0::2] + 0.1 * rng.normal(size=(n // 2, D))
        x[:, 0] += 1.5 * label
        flags = pairs & edits & (label == (0 if edited == "safe" else 1))
        x[:, 1] += trace * flags
        x[:, 2] += domain * pairs
        more: dict[str, Any] = {"pair_id": [f"{name}{i // 2}" for i in range(n)]} if pairs else {}
        source = ["a" if i % 3 else "b" for i in range(n)]
        records = Records.from_columns(
            id=[f"{name}-{i}" for i in range(n)], label=label, edited=flags.tolist(), source=source, **more
        )
        return Embeddings(records, x.astype(np.float32), spec)

    real, pairs = part("real", False, 240, True), part("pairs", True, 240, True)
    tests = {"clean": part("clean", True, 60, False), "touched": part("touched", True, 60, True)}
    if leak:
        matrix = tests["clean"].matrix.copy()
        matrix[5] = real.matrix[17]
        tests["clean"] = Embeddings(tests["clean"].records, matrix, spec)
    return Pools("made up", real, pairs, tests)


FAST = AuditSettings(permutations=3, replicates=200)


def _asked(audit: Audit, label: int, name: str) -> Question:
    return next(q for q in audit.questions if q.label == label and q.name == name)


def test_an_editors_trace_is_found_and_said() -> None:
    audit = audit_pools(_pools(trace=3.0), FAST)
    assert _asked(audit, 0, "edited").readout.auroc > 0.9
    assert _asked(audit, 0, "pair pool").same_as == "edited"
    assert _asked(audit, 1, "edited").readout.reason == "all 240 are unedited"
    assert not _asked(audit, 1, "pair pool").readout.readable
    said = "\n".join(findings(audit))
    assert "'edited' is readable at AUROC .9" in said
    assert "(test set 'clean')" in said
    assert "On test set 'touched' edited means safe (Cramér's V 1.0)" in said
    assert "nothing shows that the edits themselves" not in said
    assert "No test image has a near duplicate" in said
    text = audit_text(audit)
    assert "cannot be tested: all 240 are unedited" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_domain_shift_is_not_taken_for_an_edit() -> None:
    said = "\n".join(findings(audit_pools(_pools(trace=0.0, domain=2.0), FAST)))
    assert "nothing shows that the edits themselves are read" in said
    assert "the pairs are of another domain" in said


def test_nothing_to_be_found_is_said_too() -> None:
    said = "\n".join(findings(audit_pools(_pools(trace=0.0, edited="unsafe"), FAST)))
    assert "'edited' is not read among unsafe images" in said
    assert "among safe images all 240 are unedited" in said
    assert "are not told apart" in said


def test_a_leaked_test_image_is_listed() -> None:
    audit = audit_pools(_pools(trace=0.0, leak=True), FAST)
    assert "real-17 – clean-5" in audit_text(audit)
    assert "1 image of test set 'clean' has a near duplicate in pool 'real'" in "\n".join(findings(audit))
    rows = [r for r in audit_rows(audit) if r["measure"] == "couple"]
    assert [r["note"] for r in rows] == ["real-17 – clean-5"]


def test_figures_of_a_sample_are_called_so() -> None:
    """Twenty test images are in the real pool; of samples nothing is said as if it were of all images."""
    pools = _pools(trace=3.0)
    matrix = pools.tests["clean"].matrix.copy()
    matrix[:20] = pools.real.matrix[:20]
    clean = Embeddings(pools.tests["clean"].records, matrix, pools.spec)
    pools = Pools(pools.name, pools.real, pools.pairs, {"clean": clean})
    less = AuditSettings(permutations=2, replicates=100, max_images=100, max_compared=50)
    whole, part = audit_pools(pools, FAST), audit_pools(pools, less)
    (found,) = (d for d in part.duplicates if (d.a, d.b) == ("real", "test clean"))
    assert 0 < found.n_of_b < 20
    said, text = "\n".join(findings(part)), audit_text(part)
    images = f"At least {found.n_of_b} image{'s' * (found.n_of_b > 1)} of test set 'clean'"
    assert images in said
    assert "in pool 'real' (compared: 50 of 60 with 50 of 240)" in said
    row = " ".join(text.split("real – test clean")[1].split("\n")[0].split())
    assert row == f"50 × 50 ≥ {found.n_couples} ≥ 1.000"
    assert f"50 of 240 with 50 of 60, so about {found.expected_couples:.0f} couples in all" in " ".join(text.split())
    assert "a sample of 100 of 240" in said
    assert "100 of 120 pairs measured" in said
    assert "50 + 50 of 240" in text
    assert "100 of 120" in text.split("pairs measured")[1].split("\n")[0]
    rows = {(r["section"], r["part"], r["measure"]): r for r in audit_rows(part)}
    couples = rows["duplicates", "real – test clean", "couples"]
    assert couples["note"] == "a lower bound: compared: 50 of 60 with 50 of 240"
    assert rows["duplicates", "real – test clean", "expected_couples"]["value"] == found.expected_couples
    assert rows["pairs", "pairs", "found"]["note"] == "100 of 120"
    exact = "\n".join([*findings(whole), audit_text(whole)])
    assert "20 images of test set 'clean' have near duplicates in pool 'real': look" in exact
    assert not any(word in exact for word in ("At least", "≥ 1.", "sample", " of 120"))


def test_a_sample_without_a_duplicate_is_no_proof_that_there_is_none() -> None:
    pools = _pools(trace=0.0)
    less = AuditSettings(permutations=1, replicates=100, max_compared=50)
    said = "\n".join(findings(audit_pools(pools, less)))
    assert "No test image was found to have a near duplicate" in said
    assert "not all were compared: raise max_compared" in said


@pytest.mark.apart
def test_neither_order_nor_repetition_changes_an_audit() -> None:
    pools = _pools(trace=1.0)
    first = audit_pools(pools, FAST)
    assert pools.pairs is not None
    shuffled = Pools(
        pools.name,
        pools.real.take(np.random.default_rng(1).permutation(240)),
        pools.pairs.take(np.random.default_rng(2).permutation(240)),
        {name: part.take(np.arange(60)[::-1]) for name, part in pools.tests.items()},
    )
    assert audit_text(audit_pools(shuffled, FAST)) == audit_text(first)
    assert repr(audit_pools(pools, FAST)) == repr(first)


def test_pools_in_stores_are_audited_alike_and_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked, "_BLOCK_ROWS", 64)
    pools = _pools(trace=1.0)
    sizes = []
    read = StoredRows._read

    def noted(self: StoredRows, indices: np.ndarray, dtype: Any) -> np.ndarray:
        sizes.append(len(indices))
        return read(self, indices, dtype)

    def stored(name: str, part: Embeddings) -> Embeddings:
        np.save(tmp_path / f"{name}.npy", np.asarray(part.matrix))
        file = MatrixFile(tmp_path / f"{name}.npy", len(part))
        return Embeddings(part.records, StoredRows([file], D, np.float32), part.spec)

    assert pools.pairs is not None
    in_memory = Pools(pools.name, pools.real, pools.pairs, {"clean": pools.tests["clean"]})
    tests = {"clean": stored("clean", pools.tests["clean"])}
    in_stores = Pools(pools.name, stored("real", pools.real), stored("pairs", pools.pairs), tests)
    less = AuditSettings(permutations=1, replicates=100, max_images=100, max_compared=50, folds=2)
    monkeypatch.setattr(StoredRows, "_read", noted)
    assert repr(audit_pools(in_stores, less)) == repr(audit_pools(in_memory, less))
    assert max(sizes) <= 101  # of 240


def test_stacked_rows_are_those_of_their_parts() -> None:
    parts = [_x(5), _x(3, 1), _x(4, 2)]
    whole = np.concatenate(parts).astype(np.float32)
    rows = np.array([11, 0, 4, 5, 5, 7, 8])
    np.testing.assert_array_equal(StackedRows(parts)[rows], whole[rows])
    taken = StackedRows(parts).take(rows).take(np.array([6, 0]))
    np.testing.assert_array_equal(np.asarray(taken), whole[[8, 11]])
    np.testing.assert_allclose(StackedRows(parts).mean(), whole.mean(axis=0), atol=1e-7)


def test_without_pairs_the_rest_is_audited() -> None:
    pools = _pools(trace=0.0)
    audit = audit_pools(Pools("real only", pools.real, None, pools.tests), FAST)
    assert _asked(audit, 0, "pair pool").readout.reason == "all 120 are in the real pool"
    assert _asked(audit, 0, "source 'a'").readout.tested
    assert any("No training image is marked as edited" in text for text in findings(audit))


@pytest.mark.parametrize(("name", "value"), [("folds", 1), ("max_images", 3), ("duplicate_cosine", 1.0), ("seed", -1)])
def test_wrong_settings_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        AuditSettings(**{name: value})  # type: ignore[arg-type]
