"""The pools: determinism, counterfactual truth, correlations, balance, errors."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from guardtrain.errors import ConfigError
from guardtrain.scenes import CATEGORIES, SceneSource, contact_sheet
from guardtrain.scenes.contexts import CONTEXTS
from guardtrain.scenes.render import RENDERER_VERSION

TYPICAL_LABEL = {context.name: context.typical_label for context in CONTEXTS}


def _digest(images: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes()).hexdigest()


# Determinism


@settings(max_examples=25, deadline=None)
@given(
    pool=st.sampled_from(["real", "pairs", "test"]),
    seed=st.integers(0, 2**31),
    indices=st.lists(st.integers(0, 39), min_size=1, max_size=8),
    larger=st.integers(20, 500),
)
def test_an_image_depends_on_its_index_alone(pool: str, seed: int, indices: list[int], larger: int) -> None:
    """Neither how many images a pool has, nor which others are asked for, nor the order changes a pixel."""
    together = SceneSource(pool, 40, seed=seed).images(indices)
    alone = SceneSource(pool, 2 * larger, seed=seed)
    for row, i in zip(together, indices, strict=True):
        assert np.array_equal(row, alone.images([i])[0])
        assert np.array_equal(row, np.asarray(alone.image(i)))


def test_records_of_a_larger_pool_start_with_those_of_a_smaller_one() -> None:
    for pool in ("real", "pairs", "test"):
        small, large = SceneSource(pool, 50).records(), SceneSource(pool, 200).records()
        assert large.table.slice(0, 50).equals(small.table)


def test_pixels_are_those_of_this_renderer_version() -> None:
    """Whoever changes what is drawn raises RENDERER_VERSION, trains the demo encoder anew and renews these figures.

    They are the mean grey levels of single images, within a margin for how releases of Pillow rasterise.
    """
    assert RENDERER_VERSION == 1
    for pool, expected in MEANS_OF_VERSION_1.items():
        means = SceneSource(pool, 6).images(range(6)).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(means, expected, atol=0.4)


MEANS_OF_VERSION_1 = {
    "real": [189.0, 96.9, 103.6, 130.5, 150.3, 110.1],
    "pairs": [164.4, 164.4, 176.6, 176.8, 141.9, 141.4],
    "test": [166.1, 166.1, 141.9, 142.0, 119.0, 118.9],
}


def test_no_two_pools_or_seeds_share_an_image() -> None:
    digests = [
        _digest(image)
        for pool in ("real", "pairs", "test")
        for seed in (0, 1)
        for image in SceneSource(pool, 300, seed=seed).images(range(300))
    ]
    assert len(set(digests)) == len(digests) == 1800


# What differs within a pair


@pytest.mark.parametrize("category", list(CATEGORIES))
def test_halves_differ_exactly_where_the_mask_says(category: str) -> None:
    source = SceneSource("pairs", 80, edit_artefact=0.0, categories=[category])
    images = source.images(range(80))
    for j in range(40):
        truth = source.mask(2 * j)
        differs = (images[2 * j] != images[2 * j + 1]).any(axis=-1)
        assert not (differs & ~truth).any()
        assert np.array_equal(truth, source.mask(2 * j + 1))
        assert 12 <= truth.sum() <= 0.35 * truth.size
        assert differs.sum() >= 0.4 * truth.sum()


def test_the_mask_of_a_real_image_is_that_of_its_counterfactual() -> None:
    source = SceneSource("real", 40)
    assert all(10 < source.mask(i).sum() < 0.35 * 64 * 64 for i in range(40))


def test_the_edit_touches_safe_halves_only_and_grows_with_its_strength() -> None:
    clean = SceneSource("pairs", 80, edit_artefact=0.0).images(range(80)).astype(int)
    traces = []
    for strength in (0.1, 0.25, 0.5, 0.75, 1.0):
        edited = SceneSource("pairs", 80, edit_artefact=strength).images(range(80)).astype(int)
        assert np.array_equal(edited[1::2], clean[1::2])
        traces.append(np.abs(edited - clean)[0::2].mean())
    assert np.all(np.diff(traces) > 0.1)
    assert traces[2] < 8  # the default is faint: grey levels out of 255


def test_default_artefact_marks_pairs_and_not_test() -> None:
    for pool, strength in (("pairs", 0.5), ("test", 0.0)):
        default, explicit = SceneSource(pool, 20), SceneSource(pool, 20, edit_artefact=strength)
        assert np.array_equal(default.images(range(20)), explicit.images(range(20)))
        assert default.content_key() == explicit.content_key()


# What the records say


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 400), pool=st.sampled_from(["real", "pairs", "test"]))
def test_labels_and_categories_are_balanced_at_every_size(n: int, pool: str) -> None:
    n += n % 2 if pool != "real" else 0
    records = SceneSource(pool, n).records()
    assert abs(2 * int(records.labels.sum()) - n) <= 1
    counts = Counter(records.categories)
    counts.update(dict.fromkeys(CATEGORIES.values(), 0))
    assert max(counts.values()) - min(counts.values()) <= 2


def test_records_name_pairs_and_edits() -> None:
    records = SceneSource("pairs", 6, seed=3).records()
    assert records.ids.tolist()[2:4] == ["scenes-pairs-s3-000001-safe", "scenes-pairs-s3-000001-unsafe"]
    assert records.pair_ids.tolist()[2:4] == ["scenes-pairs-s3-000001"] * 2
    assert records.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(records.edited, records.labels == 0)
    assert set(records.sources) == {"scenes"}
    assert records.image_uri(0) is None
    real = SceneSource("real", 13).records()
    assert real.ids[12] == "scenes-real-s0-000012"
    assert not real.edited.any() and set(real.pair_ids) == {None}
    assert not SceneSource("test", 10).records().edited.any()
    assert SceneSource("test", 10, edit_artefact=0.3).records().edited.sum() == 5


@pytest.mark.parametrize(("pool", "correlation"), [("real", 0.2), ("real", 0.9), ("pairs", 0.9), ("test", 0.5)])
def test_the_context_named_is_that_of_the_scene_drawn(pool: str, correlation: float) -> None:
    source = SceneSource(pool, n=60, seed=3, context_correlation=correlation)
    drawn = [source._scene(source._plan(i)).context.name for i in range(60)]
    assert source.records().column("context").tolist() == drawn
    assert len(set(drawn)) > 3


@pytest.mark.parametrize("correlation", [0.5, 0.75, 0.9, 1.0])
def test_context_goes_with_the_label_as_configured(correlation: float) -> None:
    records = SceneSource("real", 2000, context_correlation=correlation).records()
    typical = np.array([TYPICAL_LABEL[c] for c in records.column("context")])
    assert abs((typical == records.labels).mean() - correlation) < 0.035  # three standard errors at 0.5


@pytest.mark.parametrize("pool", ["pairs", "test"])
def test_contexts_of_pairs_do_not_go_with_the_label(pool: str) -> None:
    records = SceneSource(pool, 2000, context_correlation=1.0).records()
    contexts = records.column("context")
    assert np.array_equal(contexts[0::2], contexts[1::2])
    counts = Counter(contexts[0::2])
    assert len(counts) == 12 and min(counts.values()) > 45 and max(counts.values()) < 130


# Settings


def test_content_key_names_what_changes_pixels() -> None:
    key = SceneSource("pairs", 10).content_key()
    assert SceneSource("pairs", 20).content_key() == key
    assert SceneSource("pairs", 10, context_correlation=0.7).content_key() == key  # pairs do not use it
    others = [
        SceneSource("test", 10, edit_artefact=0.5),
        SceneSource("pairs", 10, seed=1),
        SceneSource("pairs", 10, edit_artefact=0.4),
        SceneSource("pairs", 10, categories=["O1"]),
        SceneSource("pairs", 10, size=96),
        SceneSource("real", 10),
        SceneSource("real", 10, context_correlation=0.7),
    ]
    assert len({key, *(source.content_key() for source in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"pool": "train", "n": 2}, "real, pairs, test"),
        ({"pool": "real", "n": 0}, "at least one"),
        ({"pool": "pairs", "n": 3}, "even"),
        ({"pool": "real", "n": 2, "seed": -1}, "0 or more"),
        ({"pool": "real", "n": 2, "context_correlation": 1.2}, "between 0 and 1"),
        ({"pool": "pairs", "n": 2, "edit_artefact": -0.1}, "between 0 and 1"),
        ({"pool": "real", "n": 2, "edit_artefact": 0.5}, "not edited"),
        ({"pool": "real", "n": 2, "categories": ["O10"]}, "O1, O2"),
        ({"pool": "real", "n": 2, "categories": []}, "O1, O2"),
        ({"pool": "real", "n": 2, "size": 8}, "32 to 256"),
    ],
)
def test_bad_settings_say_what_is_allowed(settings_: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SceneSource(**settings_)  # type: ignore[arg-type]


def test_settings_compose_with_omegaconf() -> None:
    schema = OmegaConf.structured(SceneSource)
    merged = OmegaConf.merge(schema, {"pool": "pairs", "n": 4, "edit_artefact": 0.25, "categories": ["O5", "O9"]})
    source = OmegaConf.to_object(merged)
    assert isinstance(source, SceneSource)
    assert source.images(range(4)).shape == (4, 64, 64, 3)
    assert set(source.records().categories) == {CATEGORIES["O5"], CATEGORIES["O9"]}


def test_an_image_outside_the_pool_is_an_index_error() -> None:
    with pytest.raises(IndexError, match="pool of 4"):
        SceneSource("test", 4).image(4)


def test_other_sizes_show_the_same_scene() -> None:
    small, large = (SceneSource("test", 18, size=size).images(range(18)).astype(float) for size in (64, 128))
    shrunk = large.reshape(18, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.97


def test_contact_sheet_shows_a_row_for_each_category() -> None:
    sheet = contact_sheet(pairs_per_category=3, zoom=1)
    assert sheet.size == (3 * 129 + 2 * 2, 9 * 66 - 2)
    source = SceneSource("test", 54)
    assert np.array_equal(np.asarray(sheet)[66:130, 65:129], source.images([3])[0])
