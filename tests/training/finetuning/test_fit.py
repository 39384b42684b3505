from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guardtrain.encoders.encoder import Encoder
from guardtrain.errors import DataError
from guardtrain.scenes import SceneSource
from guardtrain.training.batches import RunPlan
from guardtrain.training.finetuning.fit import Tuned, tune
from guardtrain.training.finetuning.images import augmentation, read_pixels
from guardtrain.training.finetuning.module import LoraModule
from guardtrain.training.finetuning.settings import LoraSettings
from guardtrain.training.settings import LossSettings, PairSettings, TrainerSettings
from tests.embeddings.fake_encoder import EncodedPictures
from tests.sources.animations import coloured, colours

pytest.importorskip("peft", reason="needs the extra lora")

SOURCE = SceneSource(pool="pairs", n=24)
SETTINGS = LoraSettings(rank=2, dropout=0.2, steps=6, batch_size=8, evaluate_every=2, folds=3)
LOSS = LossSettings(pairs=PairSettings(mass=0.6, centring=0.5, offset=30.0))
TRAINER = TrainerSettings(accelerator="cpu", progress=False)


def _tune(encoder: Encoder, folder: Path, settings: LoraSettings = SETTINGS, **changed: Any) -> Tuned:
    images = SOURCE.images(range(24))
    rows = np.arange(24)
    given = {
        "pixels": images,
        "embeddings": torch.from_numpy(encoder.encode_images(images)),
        "labels": torch.tensor([0, 1] * 12),
        "plan": RunPlan(rows, 3, folds=rows // 2 % 3, split=8, pairs=np.stack([rows[9::2], rows[8::2]], axis=1)),
        "loss": LOSS,
        "trainer": TRAINER,
    } | changed
    return tune(encoder, settings=settings, folder=folder, **given)


def test_killed_and_started_again_it_comes_to_the_same_weights(load, tmp_path: Path, monkeypatch) -> None:
    settings = replace(SETTINGS, lr=0.01)
    whole = load("resnet")
    straight = _tune(whole, tmp_path / "whole", settings)
    taken = []
    step = LoraModule.training_step

    def counted(self: LoraModule, batch: int, batch_idx: int) -> torch.Tensor:
        taken.append(batch)
        if taken == [0, 1, 2, 3, 4]:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LoraModule, "training_step", counted)
    with pytest.raises(RuntimeError, match="killed"):
        _tune(load("resnet"), tmp_path / "cut", settings)
    size = (tmp_path / "cut" / "last.ckpt").stat().st_size
    again = load("resnet")
    resumed = _tune(again, tmp_path / "cut", settings)
    assert taken[5:] == [4, 5]  # from the last evaluation on
    mine, theirs = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (resumed.step, resumed.held_out) == (straight.step, straight.held_out)
    assert size < 0.2 * sum(value.nbytes for value in mine.values())  # without what is frozen
    assert not (tmp_path / "cut").exists()


def test_held_out_loss_falls_and_the_best_step_is_kept(load, tmp_path: Path) -> None:
    encoder = load("resnet")
    frozen = encoder.encode_images(SOURCE.images(range(24)))
    tuned = _tune(encoder, tmp_path / "a", replace(SETTINGS, steps=12, lr=0.003))
    assert tuned.held_out is not None and tuned.held_out[1] < tuned.held_out[0] and tuned.step > 0
    assert not np.allclose(encoder.encode_images(SOURCE.images(range(24))), frozen, atol=1e-3)
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())


def test_adapters_that_only_do_harm_leave_the_encoder_as_it_was(load, tmp_path: Path) -> None:
    encoder = load("resnet")
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    tuned = _tune(encoder, tmp_path / "a", replace(SETTINGS, steps=100, patience=1, lr=3.0, head_lr=3.0, warmup=0.0))
    assert tuned.step == 0 and tuned.held_out is not None and tuned.held_out[0] == tuned.held_out[1]
    after = encoder.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_without_folds_all_images_train_for_all_steps(load, tmp_path: Path) -> None:
    rows = np.arange(24)
    settings = replace(SETTINGS, steps=2, augment="crop")
    tuned = _tune(load("transformer"), tmp_path / "a", settings, plan=RunPlan(rows, 0),
                  pixels=np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype=np.uint8),
                  embeddings=torch.randn(24, 12))  # fmt: skip
    assert (tuned.step, tuned.held_out) == (2, None)


def test_pixels_come_in_the_order_asked_for_whether_in_memory_or_on_disk(load, tmp_path: Path) -> None:
    encoder, ids = load("resnet"), SOURCE.records().ids
    parts = [(SOURCE, ids[[20, 3, 7]].tolist()), (SOURCE, ids[[1, 0]].tolist())]
    wanted = SOURCE.images([20, 3, 7, 1, 0])
    found = read_pixels(parts, encoder, memory_gb=1, folder=tmp_path, progress=False)
    np.testing.assert_array_equal(found, wanted)
    mapped = read_pixels(parts, encoder, memory_gb=0, folder=tmp_path, progress=False)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, wanted)
    with pytest.raises(DataError, match="records changed"):
        read_pixels([(SOURCE, ["nobody"])], encoder, memory_gb=1, folder=tmp_path)


def test_animations_are_learnt_from_by_their_first_frame_and_said(
    load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, source = load("resnet"), EncodedPictures(4, damaged={2: coloured("GIF", 3), 3: coloured("PNG", 2)})
    found = read_pixels([(source, ["r3", "r2", "r0"])], encoder, memory_gb=1, folder=tmp_path, progress=False)
    np.testing.assert_array_equal(found[1], np.broadcast_to(colours(3)[0], found[1].shape))
    (line,) = caplog.messages
    assert line.endswith("2 animations are learnt from by the first frame, of which a label is taken to be: r2, r3")


def test_augmentation_alters_images_one_by_one_and_keeps_their_shape() -> None:
    pixels = torch.from_numpy(SOURCE.images(range(16)))
    assert augmentation("none", 64, 64) is None
    flip, crop = augmentation("flip", 64, 64), augmentation("crop", 64, 64)
    assert flip is not None and crop is not None
    torch.manual_seed(0)
    altered = flip(pixels)
    mirrored = [torch.equal(a, b.flip(1)) for a, b in zip(altered, pixels, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(altered, pixels, strict=True)]
    assert any(mirrored) and any(same) and all(m or s for m, s in zip(mirrored, same, strict=True))
    assert crop(pixels).shape == pixels.shape and crop(pixels).dtype == torch.uint8
