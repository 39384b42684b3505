from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guardtrain.embeddings import Embeddings
from guardtrain.embeddings.rows import MatrixFile, StoredRows
from guardtrain.encoders.spec import external_spec
from guardtrain.errors import ConfigError, DataError, EncoderError
from guardtrain.mixtures import Mixer, Pool
from guardtrain.records import Records
from guardtrain.training.pools import HoldOut, Pools, describe, make_pools


def _embeddings(n: int, prefix: str, pairs: bool = False, name: str = "toy", **columns: object) -> Embeddings:
    labels = [i % 2 for i in range(n)]
    if pairs:
        columns["pair_id"] = [f"{prefix}{i // 2}" for i in range(n)]
    records = Records.from_columns(id=[f"{prefix}-{i:03d}" for i in range(n)], label=labels, **columns)
    matrix = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
    return Embeddings(records, matrix, external_spec({"name": name}, 4))


def test_held_out_groups_leave_the_pool_and_nothing_is_in_both() -> None:
    pools = make_pools(
        "toy",
        {"real": _embeddings(40, "r"), "pairs": _embeddings(60, "p", pairs=True)},
        {"far": HoldOut("pairs", groups=20), "near": HoldOut("real", fraction=0.25)},
        seed=0,
    )
    assert pools.pairs is not None
    assert len(pools.tests["far"]) == 40
    assert len(pools.pairs) == 20
    assert (len(pools.real), len(pools.tests["near"])) == (30, 10)
    for test in pools.tests.values():
        for pool in (pools.real, pools.pairs):
            assert not set(test.records.groups) & set(pool.records.groups)
    assert describe(pools)[1].endswith("10 pairs")


def test_swapped_pairs_are_pairs_still_and_those_of_a_test_set_are_not_swapped() -> None:
    pools = {"real": _embeddings(20, "r"), "pairs": _embeddings(60, "p", pairs=True)}
    tests: dict[str, Embeddings | HoldOut] = {"held": HoldOut("pairs", groups=10)}
    clean, some, more = (make_pools("toy", pools, tests, seed=3, swapped=share) for share in (None, 0.25, 0.5))
    wrong = []
    for found in (some, more):
        assert found.pairs is not None and clean.pairs is not None
        np.testing.assert_array_equal(found.tests["held"].records.labels, clean.tests["held"].records.labels)
        np.testing.assert_array_equal(found.real.records.labels, clean.real.records.labels)
        changed = found.pairs.records.labels != clean.pairs.records.labels
        wrong.append(set(found.pairs.records.pair_ids[changed].tolist()))
        assert changed.sum() == 2 * len(wrong[-1])  # both halves, so that one is safe and one unsafe
        Records.from_table(found.pairs.records.table)
        assert found.digest != clean.digest and f"of {len(clean.pairs) // 2} pairs are swapped" in found.notes[-1]
    assert [len(one) for one in wrong] == [5, 10] and wrong[0] < wrong[1] and not clean.notes


def test_rows_of_a_mixture_are_its_images() -> None:
    real, pairs = _embeddings(20, "r"), _embeddings(20, "p", pairs=True)
    pools = make_pools("toy", {"real": real, "pairs": pairs}, {"t": _embeddings(10, "t")}, seed=0)
    mixture = Mixer(Pool.from_records(real.records), Pool.from_records(pairs.records)).mix(
        budget=8, ratio=0.5, arm="replace", control="paired", seed=1
    )
    rows = pools.rows(mixture)
    np.testing.assert_array_equal(pools.matrix[rows[:4]], real.matrix[mixture.real])
    np.testing.assert_array_equal(pools.matrix[rows[4:]], pairs.matrix[mixture.pairs])
    np.testing.assert_array_equal(pools.labels[rows[4:]], pairs.records.labels[mixture.pairs])


@pytest.mark.parametrize("folded", [False, True])
def test_shuffled_pairs_are_of_the_same_images_with_other_partners(folded: bool) -> None:
    real, pairs = _embeddings(20, "r"), _embeddings(40, "p", pairs=True)
    pools = make_pools("toy", {"real": real, "pairs": pairs}, {"t": _embeddings(10, "t")}, seed=0)
    mixer = Mixer(Pool.from_records(real.records), Pool.from_records(pairs.records))
    paired, shuffled = (mixer.mix(budget=32, ratio=0.75, control=c, seed=1) for c in ("paired", "shuffled"))
    assert pools.rows(paired).tolist() == pools.rows(shuffled).tolist()
    folds = mixer.folds(shuffled, 2) if folded else None
    own, others = pools.pair_rows(paired), pools.pair_rows(shuffled, folds)
    assert sorted(own.ravel().tolist()) == sorted(others.ravel().tolist())
    assert pools.labels[others].tolist() == [[1, 0]] * 12
    names = pairs.records.pair_ids[others - len(real)]
    assert (names[:, 0] != names[:, 1]).all()
    if folds is not None:
        fold = dict(zip(pools.rows(shuffled).tolist(), folds.tolist(), strict=True))
        assert all(fold[unsafe] == fold[safe] for unsafe, safe in others.tolist())


def test_the_rows_drawn_are_those_of_the_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardtrain.training.pools._BLOCK_ROWS", 3)
    real, pairs = _embeddings(20, "r"), _embeddings(20, "p", pairs=True)
    pools = make_pools("toy", {"real": real, "pairs": pairs}, {"t": _embeddings(10, "t")}, seed=0)
    np.testing.assert_array_equal(pools.matrix, np.concatenate([real.matrix, pairs.matrix]))
    mixer = Mixer(Pool.from_records(real.records), Pool.from_records(pairs.records))
    mixtures = [
        mixer.mix(budget=8, ratio=ratio, arm="replace", control="paired", seed=seed)
        for ratio, seed in [(0.5, 1), (0.0, 2)]
    ]
    drawn = pools.drawn(mixtures)
    used = np.unique(np.concatenate([pools.rows(mixture) for mixture in mixtures]))
    assert drawn.rows.tolist() == used.tolist()
    assert drawn.matrix.dtype == np.float32
    for mixture in mixtures:
        rows = pools.rows(mixture)
        np.testing.assert_array_equal(drawn.matrix[drawn.places(rows)], pools.matrix[rows])
        np.testing.assert_array_equal(drawn.labels[drawn.places(rows)], pools.labels[rows])
        whole = pools.pair_rows(mixture)
        assert drawn.places(whole).shape == whole.shape
        np.testing.assert_array_equal(drawn.rows[drawn.places(whole)], whole)
    assert pools.drawn([]).matrix.shape == (0, 4)


def test_pools_of_a_store_are_those_of_its_rows_in_memory(tmp_path: Path) -> None:
    """And nothing of the store is copied to memory but what is asked for."""
    n, dim = 4000, 64
    real, test = _embeddings(n, "r"), _embeddings(10, "t")
    matrix = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float16)
    files = []
    for i, part in enumerate(np.split(matrix, 4)):
        np.save(tmp_path / f"{i}.npy", part)
        files.append(MatrixFile(tmp_path / f"{i}.npy", len(part)))
    spec = external_spec({"name": "toy"}, dim)
    held = Embeddings(test.records, np.ones((10, dim), np.float16), spec)

    def pools(rows: np.ndarray | StoredRows) -> Pools:
        own = Embeddings(real.records, rows, spec)
        return make_pools("toy", {"real": own}, {"t": held, "near": HoldOut("real", fraction=0.25)}, seed=0)

    stored = pools(StoredRows(files, dim, np.float16))
    assert isinstance(stored.real.matrix, StoredRows)
    assert isinstance(stored.tests["near"].matrix, StoredRows)
    assert stored.digest == pools(matrix).digest
    np.testing.assert_array_equal(stored.matrix, pools(matrix).matrix)
    mixture = Mixer(Pool.from_records(stored.real.records), None).mix(
        budget=16, ratio=0, arm="replace", control="paired", seed=1
    )
    tracemalloc.start()
    try:
        stored.real.take(np.arange(len(stored.real))[::-1])
        drawn = stored.drawn([mixture])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drawn.matrix.shape == (16, dim)
    assert peak < matrix.nbytes / 2


def test_val_and_test_records_are_never_trained_on() -> None:
    splits = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    pools = make_pools(
        "toy", {"real": _embeddings(40, "r", split=splits)}, {"t": HoldOut("real", split="test")}, seed=0
    )
    assert len(pools.real) == 20
    assert set(pools.tests["t"].records.splits) == {"test"}


def test_unseen_categories_are_in_no_pool() -> None:
    kinds = ["fire", "knife", "gun", None] * 20
    real = _embeddings(40, "r", category=kinds[:40])
    names = [f"p{i // 2}" for i in range(80)]
    of_pairs = [kinds[i // 2] if i % 2 else None for i in range(80)]  # the safe halves have none
    pairs = _embeddings(80, "p", category=of_pairs, pair_id=names, group=names)
    tests = {"unseen": HoldOut("pairs", categories=("gun", "knife")), "seen": HoldOut("pairs", fraction=0.25)}
    pools = make_pools("toy", {"real": real, "pairs": pairs}, tests, seed=0)  # type: ignore[arg-type]
    assert set(pools.real.records.categories) == {"fire", None}
    assert pools.pairs is not None
    for part in (pools.pairs, pools.tests["seen"]):
        assert set(part.records.categories) <= {"fire", None}
        assert len(part) == 2 * len(set(part.records.pair_ids)), "pairs stay whole"
    unseen = pools.tests["unseen"].records
    assert {"gun", "knife"} <= set(unseen.categories) <= {"gun", "knife", None}
    assert len(unseen) == 2 * len(set(unseen.pair_ids)) == 40
    with pytest.raises(DataError, match=r"has category 'guns'\. Did you mean 'gun'"):
        make_pools("toy", {"real": real}, {"t": HoldOut("real", categories=("guns",))}, seed=0)


def test_the_digest_changes_with_every_thing_a_result_depends_on() -> None:
    def digest(real: Embeddings, test: Embeddings) -> str:
        return make_pools("toy", {"real": real}, {"t": test}, seed=0).digest

    real, test = _embeddings(20, "r"), _embeddings(10, "t")
    relabelled = Embeddings(real.records.with_column("label", 1 - real.records.labels), real.matrix, real.spec)
    moved = Embeddings(real.records, real.matrix + 1, real.spec)
    others = [
        Embeddings(real.records.with_column(column, [f"{column}{i // 2}" for i in range(20)]), real.matrix, real.spec)
        for column in ("category", "source", "pair_id", "group")
    ]
    digests = [digest(real, test), digest(relabelled, test), digest(moved, test), digest(real, _embeddings(12, "t"))]
    digests += [digest(other, test) for other in others]
    assert len(set(digests)) == 8
    assert digest(_embeddings(20, "r"), test) == digests[0]


@pytest.mark.parametrize(
    ("tests", "error", "message"),
    [
        ({"t": HoldOut("pairs", groups=2)}, ConfigError, "no such pool"),
        ({"t": HoldOut("real", split="test")}, DataError, "no record of data.real has split 'test'"),
        ({"t": _embeddings(6, "r")}, DataError, "share 6 groups or ids"),
        ({"t": _embeddings(6, "t", name="other")}, EncoderError, "name"),
        ({"t": _embeddings(6, "t").take([0, 2])}, DataError, "2 safe and 0 unsafe records; it needs both"),
    ],
)
def test_leaks_and_mistakes_are_refused(tests: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_pools("toy", {"real": _embeddings(20, "r")}, tests, seed=0)  # type: ignore[arg-type]


def test_copies_of_test_images_are_no_training_images() -> None:
    """The same pictures under other ids: as they are, as float16 made them, one half of a pair, one marked val."""
    real = _embeddings(40, "r", split=["val" if i == 7 else None for i in range(40)])
    pairs, test = _embeddings(60, "p", pairs=True), _embeddings(30, "t")
    matrix = test.matrix.copy()
    matrix[3], matrix[4] = real.matrix[5], real.matrix[6].astype(np.float16)
    matrix[8], matrix[9] = pairs.matrix[20], real.matrix[7]
    matrix[10] = real.matrix[30] * (1 + 0.01)  # another picture, though not by much
    parts = {"real": real, "pairs": pairs}
    sets = {"far": Embeddings(test.records, matrix, test.spec)}
    pools = make_pools("toy", parts, sets, seed=0)
    assert pools.pairs is not None
    assert set(real.records.ids) - set(pools.real.records.ids) == {"r-005", "r-006", "r-007"}
    assert set(pairs.records.ids) - set(pools.pairs.records.ids) == {"p-020", "p-021"}
    assert pools.validation == {}
    assert pools.notes == (
        "data.real: 2 images are exact copies of test images and left out of training: "
        "r-005 = t-003 of far, r-006 = t-004 of far",
        "data.pairs: 1 image is an exact copy of test images and left out of training, "
        "with the other halves of 1 of their pairs: p-020 = t-008 of far",
    )
    kept = make_pools("toy", parts, sets, seed=0, keep_copies=True)
    assert (len(kept.real), kept.notes) == (39, ())


def test_embeddings_that_cannot_be_the_encoders_are_refused_before_training() -> None:
    spec = replace(external_spec({"name": "toy"}, 4), normalize=True)
    real, test = _embeddings(40, "r"), _embeddings(10, "t")
    unit = [e.matrix / np.linalg.norm(e.matrix, axis=1, keepdims=True) for e in (real, test)]
    make_pools(
        "toy", {"real": Embeddings(real.records, unit[0], spec)}, {"t": Embeddings(test.records, unit[1], spec)}, seed=0
    )
    for matrix, message in (
        (
            np.where(np.arange(40)[:, None] == 9, 2, 1) * unit[0],
            "data.real: .* unit norm; 1 of 40 are not, .* row 9 with norm 2",
        ),
        (np.where(np.arange(40)[:, None] == 9, np.nan, 1) * unit[0], "data.real: 1 of 40 embeddings hold NaN .* row 9"),
    ):
        wrong = Embeddings(real.records, matrix.astype(np.float32), spec)
        with pytest.raises(DataError, match=message):
            make_pools("toy", {"real": wrong}, {"t": Embeddings(test.records, unit[1], spec)}, seed=0)


def test_records_marked_val_are_kept_apart_but_for_what_a_test_set_shares() -> None:
    split = ["val" if i < 10 else "train" for i in range(40)]
    group = [f"g{i}" for i in range(40)]
    real = _embeddings(40, "r", split=split, group=group)
    tests = {"t": _embeddings(10, "t", group=["g0", "g1", *(f"t{i}" for i in range(8))])}
    pools = make_pools("toy", {"real": real}, tests, seed=0)
    assert pools.validation["real"].records.ids.tolist() == [f"r-{i:03d}" for i in range(2, 10)]
    np.testing.assert_array_equal(pools.validation["real"].matrix, real.matrix[2:10])
    assert len(pools.real) == 30
    marked = make_pools("toy", {"real": real}, {"t": HoldOut("real", split="val")}, seed=0)
    assert marked.validation == {}
    assert marked.digest != pools.digest
    without = make_pools("toy", {"real": real.take(np.arange(10, 40))}, tests, seed=0)
    assert without.digest == pools.digest, "keys of runs are what they were"
    labels = real.records.labels.copy()
    labels[2:4] = 1 - labels[2:4]
    relabelled = Embeddings(real.records.with_column("label", labels), real.matrix, real.spec)
    mended = make_pools("toy", {"real": relabelled}, tests, seed=0)
    assert mended.digest == pools.digest
    assert len({pools.validation_digest, mended.validation_digest, without.validation_digest}) == 3
