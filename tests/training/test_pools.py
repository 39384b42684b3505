from __future__ import annotations

import numpy as np
import pytest

from guardtrain.embeddings import Embeddings
from guardtrain.encoders.spec import external_spec
from guardtrain.errors import ConfigError, DataError, EncoderError
from guardtrain.mixtures import Mixer, Pool
from guardtrain.records import Records
from guardtrain.training.pools import HoldOut, describe, make_pools


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


def test_val_and_test_records_are_never_trained_on() -> None:
    splits = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    pools = make_pools(
        "toy", {"real": _embeddings(40, "r", split=splits)}, {"t": HoldOut("real", split="test")}, seed=0
    )
    assert len(pools.real) == 20
    assert set(pools.tests["t"].records.splits) == {"test"}


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
