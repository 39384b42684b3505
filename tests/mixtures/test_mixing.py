from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guardtrain.errors import MixtureError
from guardtrain.mixtures import ARMS, CONTROLS, OF_REAL, Mixer, Pool, counts, mix

from .strategies import SEEDS, pair_pools, real_pools, shuffled

RATIOS = st.sampled_from([0.0, 0.1, 0.125, 0.2, 0.25, 1 / 3, 0.5, 0.7, 0.75, 0.9, 1.0])
ARM = st.sampled_from(ARMS)
CONTROL = st.sampled_from(CONTROLS)


def _real(n: int = 40) -> Pool:
    return Pool([f"r{i:03d}" for i in range(n)], [0, 1] * (n // 2))


def _pairs(p: int = 10) -> Pool:
    names = [f"p{i:02d}" for i in range(p) for _ in (0, 1)]
    return Pool([f"{n}-{i % 2}" for i, n in enumerate(names)], [0, 1] * p, None, names, names, name="pairs")  # type: ignore[arg-type]


@given(st.integers(2, 2000), RATIOS, ARM, CONTROL)
def test_exact_counts(budget: int, ratio: float, arm: str, control: str) -> None:
    m = budget * ratio
    even = abs(m - round(m)) < 1e-6 and round(m) % 2 == 0
    if not even:
        with pytest.raises(MixtureError, match="even whole number"):
            counts(budget, ratio, arm, "exact", control)
        return
    n_real, n_pair_images = counts(budget, ratio, arm, "exact", control)
    assert n_real + n_pair_images == (budget if arm == "replace" else budget + round(m))
    assert n_pair_images == (0 if control in OF_REAL else round(m))


@given(st.integers(2, 500), st.floats(0, 1), ARM)
def test_nearest_counts(budget: int, ratio: float, arm: str) -> None:
    n_real, m = counts(budget, ratio, arm, "nearest")
    assert m % 2 == 0 and 0 <= m <= budget
    best = min(abs(e - budget * ratio) for e in range(0, budget + 1, 2))
    assert abs(m - budget * ratio) <= best + 1e-6
    assert n_real == (budget - m if arm == "replace" else budget)


def test_float_noise_is_forgiven_and_ties_go_up() -> None:
    assert counts(80, 0.1) == (72, 8)
    assert counts(10, 0.6) == (4, 6)
    assert counts(30, 0.6) == (12, 18)
    assert counts(30, 0.1 + 0.2 + 0.1) == (18, 12)
    assert counts(6, 0.5, "replace", "nearest") == (2, 4)
    assert counts(5, 1.0, "replace", "nearest") == (1, 4)
    assert counts(5, 1.0, "add", "nearest") == (5, 4)
    assert counts(8, 0.1, "replace", "nearest") == (8, 0)


@given(st.integers(2, 400), RATIOS)
def test_what_a_refusal_suggests_works(budget: int, ratio: float) -> None:
    try:
        counts(budget, ratio)
    except MixtureError as error:
        message = str(error)
    else:
        assume(False)
    ratios = message.split("work are ")[1].split(";")[0].split(". ")[0]
    for suggestion in ratios.split(" or "):
        assert counts(budget, float(suggestion), "replace", "nearest")[1] == pytest.approx(
            budget * float(suggestion), abs=1e-2
        )
    budgets = message.split("budgets are ")[1].split(". ")[0].split(" or ")
    for suggestion in budgets:
        assert counts(int(suggestion), ratio)[1] > 0
    assert int(budgets[0]) < budget < int(budgets[-1]) or len(budgets) == 1


@given(real_pools(), pair_pools(), RATIOS, ARM, CONTROL, SEEDS, st.integers(2, 60))
def test_every_mixture_is_exact_or_refused(
    real: Pool, pairs: Pool, ratio: float, arm: str, control: str, seed: int, budget: int
) -> None:
    n_real, m = counts(budget, ratio, arm, "nearest", control)
    need = {"paired": m, "shuffled": m, "unpaired": 2 * m, "balanced": 0, "real": 0}[control]
    settings = {"budget": budget, "ratio": ratio, "arm": arm, "control": control, "seed": seed, "rounding": "nearest"}
    if n_real > real.n or need > pairs.n:
        with pytest.raises(MixtureError, match=f"needs {n_real}|needs {m if control == 'unpaired' else m // 2}"):
            mix(real, pairs, **settings)  # type: ignore[arg-type]
        return
    try:
        mixture = mix(real, pairs, **settings)  # type: ignore[arg-type]
    except MixtureError as error:
        scarcest = min(real.class_counts)
        assert control == "balanced"
        assert f"has {scarcest} " in str(error) or f"has {real.n - scarcest} " in str(error)
        return
    assert (mixture.n_real, mixture.n_pair_images, mixture.n_images) == (n_real, m, n_real + m)
    assert len(set(mixture.real.tolist())) == n_real and len(set(mixture.pairs.tolist())) == m
    assert mixture.real.dtype == mixture.pairs.dtype == np.int64
    labels = np.concatenate([real.labels[mixture.real], pairs.labels[mixture.pairs]])
    assert set(labels.tolist()) == {0, 1}
    assert pairs.labels[mixture.pairs].sum() * 2 == m
    per_pair = Counter(pairs.pair_ids[mixture.pairs].tolist())
    assert set(per_pair.values()) <= {1 if control == "unpaired" else 2}


@given(real_pools(), pair_pools(), RATIOS, ARM, CONTROL, SEEDS)
def test_nesting(real: Pool, pairs: Pool, ratio: float, arm: str, control: str, seed: int) -> None:
    mixer = Mixer(real, pairs)
    smaller = None
    for budget in range(2, 60):
        try:
            larger = mixer.mix(budget=budget, ratio=ratio, arm=arm, control=control, seed=seed)
        except MixtureError:
            continue
        if smaller is not None:
            assert smaller.n_real <= larger.n_real and smaller.n_pair_images <= larger.n_pair_images
            assert set(smaller.real.tolist()) <= set(larger.real.tolist())
            assert control == "balanced" or smaller.real.tolist() == larger.real[: smaller.n_real].tolist()
            assert smaller.pairs.tolist() == larger.pairs[: smaller.n_pair_images].tolist()
        smaller = larger


@given(real_pools(max_size=60), pair_pools(min_pairs=8), ARM, CONTROL, SEEDS)
def test_row_order_and_warm_caches_change_nothing(real: Pool, pairs: Pool, arm: str, control: str, seed: int) -> None:
    assume(real.n >= 12 and min(real.class_counts) >= 6)  # of each class enough for the control balanced
    settings = {"budget": 8, "ratio": 0.5, "arm": arm, "control": control, "seed": seed}
    mixture = mix(real, pairs, **settings)  # type: ignore[arg-type]
    warm = Mixer(shuffled(real, 1), shuffled(pairs, 2))
    for other in CONTROLS:
        warm.mix(budget=4, ratio=0.5, control=other, seed=seed + 1)
        warm.mix(budget=4, ratio=0.5, control=other, seed=seed)
    again = warm.mix(**settings)  # type: ignore[arg-type]
    assert real.ids[mixture.real].tolist() == warm.real.ids[again.real].tolist()
    assert warm.pairs is not None
    assert pairs.ids[mixture.pairs].tolist() == warm.pairs.ids[again.pairs].tolist()
    fold, fold_again = Mixer(real, pairs).folds(mixture, 2), warm.folds(again, 2)
    if fold is None or fold_again is None:
        assert fold is fold_again
        return
    by_id = dict(zip(_ids(Mixer(real, pairs), mixture), fold.tolist(), strict=True))
    assert by_id == dict(zip(_ids(warm, again), fold_again.tolist(), strict=True))


def _ids(mixer: Mixer, mixture) -> list[str]:  # type: ignore[no-untyped-def]
    assert mixer.pairs is not None
    return [*mixer.real.ids[mixture.real].tolist(), *mixer.pairs.ids[mixture.pairs].tolist()]


def test_ratio_zero_is_real_only_whatever_the_control() -> None:
    chosen = [mix(_real(), None, budget=10, ratio=0, arm=a, control=c, seed=3) for a in ARMS for c in CONTROLS]
    assert all(m.real.tolist() == chosen[0].real.tolist() and m.n_pair_images == 0 for m in chosen)


def test_seeds_differ() -> None:
    chosen = {tuple(mix(_real(), _pairs(), budget=8, ratio=0.5, seed=s).real.tolist()) for s in range(20)}
    assert len(chosen) == 20


def test_the_real_control_draws_the_further_real_images() -> None:
    add = mix(_real(), _pairs(), budget=10, ratio=0.4, arm="add", control="real", seed=0)
    assert (add.n_real, add.n_pair_images) == (14, 0)
    replace = mix(_real(), _pairs(), budget=10, ratio=0.4, arm="replace", control="real", seed=0)
    assert (replace.n_real, replace.n_pair_images) == (10, 0)
    assert add.real[:10].tolist() == replace.real.tolist()


@given(real_pools(max_size=60), pair_pools(max_pairs=12), RATIOS, ARM, SEEDS, st.integers(2, 40))
def test_the_balanced_control_has_the_labels_of_the_mixture(
    real: Pool, pairs: Pool, ratio: float, arm: str, seed: int, budget: int
) -> None:
    mixer = Mixer(real, pairs)
    settings = {"budget": budget, "ratio": ratio, "arm": arm, "seed": seed, "rounding": "nearest"}
    try:
        mixed = mixer.mix(**settings)  # type: ignore[arg-type]
        balanced = mixer.mix(**settings, control="balanced")  # type: ignore[arg-type]
    except MixtureError:
        return
    assert balanced.n_images == mixed.n_images and balanced.n_pair_images == 0
    assert set(mixed.real.tolist()) <= set(balanced.real.tolist())
    assert len(set(balanced.real.tolist())) == balanced.n_images
    unsafe = int(real.labels[mixed.real].sum() + pairs.labels[mixed.pairs].sum())
    assert int(real.labels[balanced.real].sum()) == unsafe


def test_a_pool_with_too_few_unsafe_images_cannot_be_balanced() -> None:
    real = Pool([f"r{i:03d}" for i in range(100)], [0] * 98 + [1] * 2)
    with pytest.raises(MixtureError, match=r"has 2 unsafe images; budget 20 .* 'balanced', .* needs 6"):
        mix(real, _pairs(), budget=20, ratio=0.5, control="balanced", seed=0)


def test_the_shuffled_control_draws_the_images_of_the_pairs() -> None:
    drawn = [mix(_real(), _pairs(), budget=16, ratio=0.5, control=c, seed=3) for c in ("paired", "shuffled")]
    assert drawn[0].real.tolist() == drawn[1].real.tolist()
    assert drawn[0].pairs.tolist() == drawn[1].pairs.tolist()


def test_mixtures_cannot_change_a_cached_ordering() -> None:
    mixture = mix(_real(), _pairs(), budget=8, ratio=0.5, seed=0)
    with pytest.raises(ValueError, match="read-only"):
        mixture.real[0] = 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 80}, "real pool has 40 images; budget 80 .* needs 80"),
        ({"budget": 40, "ratio": 0.5, "arm": "add", "control": "real"}, "has 40 images; .* control 'real' needs 60"),
        ({"budget": 40, "ratio": 0.6}, r"pairs pool has 10 pairs; .* needs 12 \(24 images\)"),
        ({"budget": 24, "ratio": 0.5, "control": "unpaired"}, "has 10 pairs; .* 'unpaired' needs 12: .* needs 6"),
        ({"ratio": 1.2}, "ratio is 1.2"),
        ({"ratio": -0.1}, "ratio is -0.1"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"budget": 1}, "budget is 1; a whole number of at least 2"),
        ({"budget": 8.0}, "budget is 8.0; a whole number"),
        ({"budget": 10, "ratio": 0.3}, "asks for 3 pair images; .* ratios that work are 0.2 or 0.4; .* budgets are 20"),
        ({"arm": "both"}, "Unknown arm 'both'; it must be one of replace, add"),
        ({"control": "none"}, "Unknown control 'none'; it must be one of paired, shuffled, unpaired, balanced, real"),
        ({"rounding": "up"}, "Unknown rounding 'up'; it must be one of exact, nearest"),
    ],
)
def test_refusals_give_numbers(settings: dict[str, object], message: str) -> None:
    with pytest.raises(MixtureError, match=message):
        mix(_real(), _pairs(), **({"budget": 8, "ratio": 0.0, "seed": 0} | settings))  # type: ignore[arg-type]


def test_pools_that_cannot_mix_are_refused() -> None:
    with pytest.raises(MixtureError, match="real pool has 3 safe and 0 unsafe"):
        Mixer(Pool(list("abc"), [0, 0, 0]))
    with pytest.raises(MixtureError, match="broken: p00"):
        Mixer(_real(), _pairs().take(range(1, 20)))
    with pytest.raises(MixtureError, match="asks for 4 pair images, and there is no pair pool"):
        mix(_real(), None, budget=8, ratio=0.5, seed=0)
    assert mix(_real(), None, budget=8, ratio=0.5, control="real", seed=0).n_real == 8


@given(real_pools(max_size=60), pair_pools(min_pairs=10), SEEDS, st.integers(2, 4), st.sampled_from(CONTROLS))
def test_mixture_folds_stay_put(real: Pool, pairs: Pool, seed: int, k: int, control: str) -> None:
    # The pair pool shares a group with the real one, as where the unsafe half is a real image.
    groups = pairs.groups.astype(object)
    groups[pairs.pair_ids == pairs.pair_ids[0]] = real.groups[0]
    pairs = Pool(pairs.ids, pairs.labels, pairs.strata, groups, pairs.pair_ids, "pairs")
    mixer = Mixer(real, pairs)
    fold_of: dict[str, int] = {}
    for budget in (4, 8, 16, 20, 32):
        try:
            mixture = mixer.mix(budget=budget, ratio=0.5, seed=seed, control=control)
        except MixtureError:
            continue
        labels = np.concatenate([real.labels[mixture.real], pairs.labels[mixture.pairs]])
        names = np.array([*real.groups[mixture.real].tolist(), *pairs.groups[mixture.pairs].tolist()])
        if min(len(set(names[labels == label].tolist())) for label in (0, 1)) <= 2 * k:
            continue  # too few for k folds along the orderings for certain
        fold = mixer.folds(mixture, k)
        assert fold is not None and fold.shape == (mixture.n_images,) and set(fold.tolist()) == set(range(k))
        for group, f in zip(names.tolist(), fold.tolist(), strict=True):
            assert fold_of.setdefault(group, f) == f


def test_mixture_folds_are_as_many_as_the_scarcer_class_has_groups() -> None:
    names = [f"r{i:03d}" for i in range(40)]
    real = Pool(names, [0] * 33 + [1] * 7)
    mixer = Mixer(real)
    for seed in range(20):
        for budget in range(2, 41):
            mixture = mixer.mix(budget=budget, ratio=0, seed=seed)
            unsafe = int(real.labels[mixture.real].sum())
            fold = mixer.folds(mixture, 5)
            if unsafe < 2:
                assert fold is None, "without its one unsafe image a head would see one class"
                continue
            assert fold is not None
            k = min(5, unsafe)
            assert set(fold.tolist()) == set(range(k))
            assert set(fold[real.labels[mixture.real] == 1].tolist()) == set(range(k)), "unsafe images in every fold"


@given(
    real_pools(max_size=40, grouped=True), pair_pools(max_pairs=8), SEEDS, st.integers(2, 6), st.sampled_from(CONTROLS)
)
def test_mixture_folds_can_be_trained_without_any_one_of_them(
    real: Pool, pairs: Pool, seed: int, k: int, control: str
) -> None:
    groups = pairs.groups.astype(object)
    groups[pairs.pair_ids == pairs.pair_ids[0]] = real.groups[0]  # in both pools
    pairs = Pool(pairs.ids, pairs.labels, pairs.strata, groups, pairs.pair_ids, "pairs")
    mixer = Mixer(real, pairs)
    for budget in (2, 3, 4, 6, 10):
        for ratio in (0.0, 0.5, 1.0):
            try:
                mixture = mixer.mix(budget=budget, ratio=ratio, seed=seed, control=control, rounding="nearest")
            except MixtureError:
                continue
            labels = np.concatenate([real.labels[mixture.real], pairs.labels[mixture.pairs]])
            names = np.array([*real.groups[mixture.real].tolist(), *pairs.groups[mixture.pairs].tolist()])
            scarcer = min(len(set(names[labels == label].tolist())) for label in (0, 1))
            fold = mixer.folds(mixture, k)
            if scarcer < 2:
                assert fold is None
                continue
            assert fold is not None and set(fold.tolist()) == set(range(min(k, scarcer)))
            assert len(set(zip(names.tolist(), fold.tolist(), strict=True))) == len(set(names.tolist()))
            for left_out in set(fold.tolist()):
                assert set(labels[fold != left_out].tolist()) == {0, 1}
            again = Mixer(shuffled(real, 1), shuffled(pairs, 2))
            mixed = again.mix(budget=budget, ratio=ratio, seed=seed, control=control, rounding="nearest")
            other = again.folds(mixed, k)
            assert other is not None
            by_id = dict(zip(_ids(mixer, mixture), fold.tolist(), strict=True))
            assert by_id == dict(zip(_ids(again, mixed), other.tolist(), strict=True)), "the order of rows is nothing"


def test_one_group_of_a_class_leaves_nothing_to_cross_validate() -> None:
    names = [f"r{i}" for i in range(8)]
    real = Pool(names, [0, 1] * 4, groups=["a" if i % 2 else f"g{i}" for i in range(8)])  # type: ignore[arg-type]
    mixer = Mixer(real)
    assert mixer.folds(mixer.mix(budget=8, ratio=0, seed=0), 5) is None
    with pytest.raises(MixtureError, match="number of folds is 1"):
        mixer.folds(mixer.mix(budget=8, ratio=0, seed=0), 1)


def test_a_large_mixture_takes_no_more_lines_than_a_small_one() -> None:
    """What makes ten thousand mixtures quick: rows are ordered once, and then only cut."""
    mixer = Mixer(_real(2048), _pairs(1024))

    def lines(budget: int, control: str) -> int:
        """Lines of Python that one mixture takes, each turn of a loop counted."""
        count = 0

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            mixer.mix(budget=budget, ratio=0.5, seed=0, control=control, rounding="nearest")
        finally:
            sys.settrace(before)
        return count

    for control in CONTROLS:
        mixer.mix(budget=1000, ratio=0.5, seed=0, control=control, rounding="nearest")  # which orders the rows
        assert lines(1000, control) == lines(20, control) > 10
