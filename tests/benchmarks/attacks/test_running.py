"""Attacks on a real guard: what is drawn, what is kept, and what a kill leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from guardtrain.benchmarks.attacks import blocks, running
from guardtrain.benchmarks.attacks.blocks import Image
from guardtrain.benchmarks.attacks.gradient import eight_bit, fgsm
from guardtrain.benchmarks.attacks.report import trained_notes
from guardtrain.benchmarks.attacks.results import counted, robust_accuracy
from guardtrain.benchmarks.attacks.running import IMAGE_COLUMNS, Job, Parts, attack_guard
from guardtrain.benchmarks.attacks.samples import ImageSet, image_sets
from guardtrain.benchmarks.attacks.settings import AttackSettings
from guardtrain.benchmarks.attacks.target import Target
from guardtrain.errors import DataError
from guardtrain.guards.guard import Guard
from guardtrain.scenes import SceneSource
from guardtrain.training.pools import HoldOut
from tests.guards.serving.small_guard import TRAINED

SETTINGS = AttackSettings(
    attacks=["gaussian", "fgsm", "pgd", "deepfool", "jpeg", "crop"],
    samples=12,
    steps=15,
    jpeg=[30],
    crop=[0.6],
    block=5,
)


@pytest.fixture(scope="module")
def job(loaded: Guard) -> Job:
    source = SceneSource("test", 40, seed=11)
    (images,) = image_sets("d", {"real": source}, {"t": source}, None, 0)
    return Job("g", Target(loaded, "balanced"), images, 4)


@pytest.fixture(scope="module")
def whole(job: Job, tmp_path_factory: pytest.TempPathFactory):
    with Parts(tmp_path_factory.mktemp("whole")).writing() as parts:
        return attack_guard(job, SETTINGS, parts)


def test_gradients_fool_the_guard_also_from_files_and_daily_changes_rarely(job: Job, whole) -> None:
    frame = whole.to_pandas()
    clean = frame[frame["attack"] == "none"]
    kept = clean[clean["right"]]["id"].tolist()[:12]
    share = {}
    for name, rows in frame[frame["attack"] != "none"].groupby("attack"):
        assert rows["id"].tolist() == kept, "the correctly classified ones, in their order"
        share[name] = rows["right"].mean()
    assert share["pgd"] <= 0.1
    assert share["pgd"] <= share["fgsm"] <= share["gaussian"]
    pixel = frame[frame["attack"].isin(["fgsm", "pgd", "deepfool"])]
    assert (pixel["linf"] <= 0.01 + 1e-6).all()
    assert (pixel["linf_file"] <= 2 / 255 + 1e-9).all()
    assert (pixel["steps"] > 0).all()
    deep = frame[frame["attack"] == "deepfool"]
    assert deep["needed"].gt(0).all()
    assert (deep["right_float"] == (deep["needed"] > 0.01)).all()
    assert frame.loc[frame["attack"] == "jpeg", "right_float"].isna().all()
    # the guard itself says so of the first image's file
    row = clean.iloc[0]
    place = job.images.records.ids.tolist().index(row["id"])
    said = job.target.guard.logits(job.target.judge.embed([job.target.judge.pixels(job.images.content(place))]))
    assert row["logit"] == pytest.approx(float(said[0]), abs=1e-5)


@pytest.mark.parametrize(("steps", "size"), [(1, None), (2, None), (1, 0.0001)])
def test_few_or_short_steps_leave_no_image_right_that_one_long_step_fools(
    job: Job, whole, tmp_path: Path, steps: int, size: float | None
) -> None:
    weak = replace(SETTINGS, attacks=["pgd"], steps=steps, step_size=size)
    with Parts(tmp_path).writing() as parts:
        frame = attack_guard(job, weak, parts).to_pandas()
    found = frame[frame["attack"] == "pgd"].set_index("id")
    once = whole.to_pandas().query("attack == 'fgsm'").set_index("id").loc[found.index]
    assert not once["right"].all()
    assert not (found["right"] & ~once["right"]).any()
    assert (found["linf"] <= 0.01 + 1e-6).all()


def test_a_point_that_fools_the_guard_by_its_rounding_alone_does_not_end_the_search() -> None:
    """A model is fooled where pixels fall by two levels, not by two and a half as with FGSM; rounding makes it two."""
    original = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    pixels, labels = original.float() / 255, torch.ones(2, dtype=torch.int64)

    def margins(now: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        fallen = (100 - 255 * now).flatten(1)
        return (1 - fallen + 8 * (fallen - 2).clamp_min(0)).mean(1)

    assert (margins(fgsm(margins, pixels, labels, 0.01).pixels, labels) > 0).all()
    (attack,) = AttackSettings(attacks=["pgd"], steps=50).plan()
    images = [Image(name, 1, b"") for name in "ab"]
    found = blocks._restarted(
        SimpleNamespace(margins=margins),
        attack,
        images,
        pixels,
        original,
        labels,
        0,  # type: ignore[arg-type]
    )
    assert (margins(found.pixels, labels) < 0).all()
    assert (margins(eight_bit(found.pixels, original, 0.01).float() / 255, labels) < 0).all()


def test_images_that_the_guard_was_trained_on_are_not_attacked(loaded: Guard, tmp_path: Path) -> None:
    source = SceneSource("test", TRAINED + 30, seed=5)  # the guard was trained on the first of them
    (images,) = image_sets("d", {"real": source}, {"t": source}, None, 0)
    job = Job("g", Target(loaded, "balanced"), images, 8)
    few = replace(SETTINGS, attacks=["fgsm"], samples=4, block=16)
    own = set(source.records().ids[:TRAINED].tolist())
    with Parts(tmp_path).writing() as parts:
        frame = attack_guard(job, few, parts).to_pandas()
        every = attack_guard(job, replace(few, training_images="keep"), parts).to_pandas()
        with pytest.raises(DataError, match="All 20 images of t are among g's training images"):
            rows = np.arange(20)
            attack_guard(replace(job, images=ImageSet("t", source, rows, source.records().take(rows))), few, parts)
    looked_at = frame[frame["attack"] == "none"]
    assert looked_at["trained_on"].tolist() == looked_at["id"].isin(own).tolist()
    attacked = frame[frame["attack"] == "fgsm"]
    assert len(attacked) == 4
    assert not attacked["id"].isin(own).any()
    assert every.loc[every["attack"] == "fgsm", "id"].isin(own).any()
    count, of = int(looked_at["trained_on"].sum()), len(looked_at)
    assert 0 < count < of
    (told,) = trained_notes(frame, {"g": loaded}, "leave_out")
    assert told.startswith(f"{count} of {of} images of 't' were among g's training images: left out of its figures")
    others = robust_accuracy(counted(frame, "leave_out"), "d", 0.95).query("attack == 'none' and unit == 'image'")
    assert others["n"].tolist() == [of - count]
    assert counted(frame, "keep") is frame


def test_blocks_that_were_kept_before_guards_knew_their_images_are_read(tmp_path: Path) -> None:
    with Parts(tmp_path).writing() as parts:
        row = dict.fromkeys(IMAGE_COLUMNS.names, "x") | {"label": 1, "flat": False, "right": True, "steps": 0}
        row |= dict.fromkeys(("strength", "logit"), 0.5)
        row |= dict.fromkeys(("right_float", "linf", "l2", "linf_file", "needed", "trained_on"))
        parts.rows({"a": 1}, lambda: [row])
        (file,) = tmp_path.glob("*.parquet")
        table = pq.read_table(file)
        pq.write_table(table.drop_columns(["trained_on"]), file)
        again = parts.rows({"a": 1}, lambda: pytest.fail("it is there"))
    assert again.schema.equals(IMAGE_COLUMNS)
    assert len(counted(again.to_pandas(), "leave_out")) == 1, "unknown is not known"


def test_a_killed_run_goes_on_and_ends_the_same(
    job: Job, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(target, attack, images, *rest):
        if len(made) == 9:
            raise KeyboardInterrupt
        made.append(attack.name)
        return attacked_rows(target, attack, images, *rest)

    attacked_rows = running.attacked_rows
    monkeypatch.setattr(running, "attacked_rows", counted)
    with pytest.raises(KeyboardInterrupt), Parts(tmp_path).writing() as parts:
        attack_guard(job, SETTINGS, parts)
    files = sorted(tmp_path.glob("*.parquet"))
    assert len(files) == 9
    files[0].write_bytes(files[0].read_bytes()[:100])  # as a power cut leaves it on some disks
    blocks = []
    monkeypatch.setattr(running, "attacked_rows", lambda *given: blocks.append(given[1].name) or attacked_rows(*given))
    with Parts(tmp_path).writing() as parts:
        again = attack_guard(job, SETTINGS, parts)
    total = len(sorted(tmp_path.glob("*.parquet")))
    assert len(blocks) == total - 8, "only what was missing or damaged"
    assert again.equals(whole)
    with (
        Parts(tmp_path).writing(),
        pytest.raises(DataError, match="Another process attacks"),
        Parts(tmp_path).writing(),
    ):
        pass


def test_of_kept_blocks_pairs_and_groups_are_those_of_today(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = AttackSettings(attacks=["jpeg"], samples=8, jpeg=[30], block=5)
    with Parts(tmp_path).writing() as parts:
        before = attack_guard(job, settings, parts)
    images = job.images
    group_of = {str(name): f"scene {i // 4}" for i, name in enumerate(images.records.ids)}
    table = images.records.with_column("pair_id", [None] * len(images)).with_column("group", list(group_of.values()))
    mended = replace(images, records=table)
    order = images.order(settings.seed)  # which pairs decide: here it shall be the kept one's
    monkeypatch.setattr(ImageSet, "order", lambda self, seed: order)
    monkeypatch.setattr(running, "attacked_rows", None)  # nothing is attacked anew
    with Parts(tmp_path).writing() as parts:
        after = attack_guard(replace(job, images=mended), settings, parts)
    assert after["group"].to_pylist() == [group_of[name] for name in after["id"].to_pylist()]
    assert set(after["pair_id"].to_pylist()) == {None}
    assert None not in before["pair_id"].to_pylist()
    rest = [name for name in before.column_names if name not in ("pair_id", "group")]
    assert after.select(rest).equals(before.select(rest))
    assert after.schema == before.schema


def test_the_seed_decides_the_order_and_pairs_stay_together(job: Job) -> None:
    images = job.images
    order = images.order(0)
    assert sorted(order.tolist()) == list(range(len(images)))
    pairs = images.records.pair_ids[order].reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert not np.array_equal(order, images.order(1))
    # fewer of the same images are drawn in the same order
    half = ImageSet("t", images.source, images.rows[:20], images.records.take(np.arange(20)))
    ids = half.records.ids[half.order(0)].tolist()
    assert ids == [one for one in images.records.ids[order].tolist() if one in set(ids)]


def test_held_out_images_are_those_that_training_holds_out() -> None:
    from guardtrain.embeddings import Embeddings
    from guardtrain.encoders.spec import external_spec
    from guardtrain.training.pools import make_pools

    source = SceneSource("real", 60, seed=2)
    held = HoldOut("real", fraction=0.3)
    (images,) = image_sets("d", {"real": source}, {"h": held}, None, 7)
    x = Embeddings(source.records(), np.random.default_rng(0).normal(size=(60, 4)).astype("f4"), external_spec({}, 4))
    wanted = make_pools("d", {"real": x}, {"h": held}, seed=7).tests["h"].records
    assert images.records.ids.tolist() == wanted.ids.tolist()
    assert source.records().ids[images.rows].tolist() == wanted.ids.tolist()


def test_test_sets_without_images_are_refused() -> None:
    source = SceneSource("test", 4)
    bare = SimpleNamespace(records=source.records)  # as sources of embeddings are
    with pytest.raises(DataError, match="has embeddings and no images"):
        image_sets("d", {"real": source}, {"t": bare}, None, 0)
    with pytest.raises(DataError, match="no test set 'u'; there are: t"):
        image_sets("d", {"real": source}, {"t": source}, ["u"], 0)
