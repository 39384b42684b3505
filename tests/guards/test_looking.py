"""Animations judged: the frame that is likeliest to be unsafe counts, wherever it stands, and is named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from guardtrain.encoders.encoder import Encoder
from guardtrain.errors import ConfigError
from guardtrain.guards.guard import Guard
from guardtrain.guards.looking import EncoderSight, UnreadableImage, likeliest
from guardtrain.guards.predicting import ImageJudge
from guardtrain.scenes import SceneSource
from guardtrain.sources.frames import Frame, chosen
from tests.embeddings.fake_encoder import FakeEncoder
from tests.guards.serving.conftest import guard, guard_folder
from tests.sources.animations import KINDS, animation, tiny_gif

__all__ = ["guard", "guard_folder"]


@pytest.fixture(scope="module")
def scenes(guard: Guard) -> list[Image.Image]:
    """Scenes from the least to the most likely to be unsafe."""
    images = [Image.fromarray(pixels) for pixels in SceneSource("test", 40, seed=9).images(range(40))]
    order = np.argsort(guard.predict(images).probabilities)
    return [images[i] for i in order]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def reel(scenes: list[Image.Image], count: int, at: int) -> list[Image.Image]:
    """`count` frames that are safe, but for the one at a place."""
    return [(scenes[-1] if i == at else scenes[i % 20]).copy() for i in range(count)]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])  # without loss, so that each frame is the scene itself
@pytest.mark.parametrize("at", [0, 3, 6])
def test_the_unsafe_frame_counts(guard: Guard, scenes: list[Image.Image], kind: str, at: int) -> None:
    content = animation(kind, reel(scenes, 7, at))
    whole, still = guard.predict([content], explain=2), guard.predict([png(scenes[-1])], explain=2)
    assert whole.probabilities == pytest.approx(still.probabilities, abs=1e-5)
    assert (whole.decision, whole.category) == (still.decision, still.category)
    assert whole.neighbours is not None and still.neighbours is not None
    assert [near.id for near in whole.neighbours[0]] == [near.id for near in still.neighbours[0]]
    assert whole.seen == ({"frame": at, "frames": 7, "frames_judged": 7},)
    assert still.seen == ({"frame": None, "frames": 1, "frames_judged": 1},)
    first = guard.predict([content], frames="first")
    assert first.seen == ({"frame": 0, "frames": 7, "frames_judged": 1},)
    alone = guard.predict([png(reel(scenes, 7, at)[0])])
    assert first.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert ImageJudge(guard).look(content).columns() == whole.seen[0]
    assert ImageJudge(guard, frames="first").look(content).columns() == first.seen[0]
    # what labels are of, and what attacks change, is the first frame
    assert (ImageJudge(guard).pixels(content) == ImageJudge(guard, frames=1).look(content).pixels).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_of_frames_is_spread_and_all_misses_none(guard: Guard, scenes: list[Image.Image], kind: str) -> None:
    frames = reel(scenes, 30, 11)
    content = animation(kind, frames)
    assert 11 not in chosen(30, 8)
    some, every = guard.predict([content]), guard.predict([content], frames="all")
    assert some.seen is not None and every.seen is not None
    assert (some.seen[0]["frames"], some.seen[0]["frames_judged"]) == (30, 8)
    assert every.seen == ({"frame": 11, "frames": 30, "frames_judged": 30},)
    assert every.probabilities[0] > some.probabilities[0]
    stills = guard.predict([png(frames[i]) for i in chosen(30, 8)]).probabilities
    tolerance = 1e-5 if kind in ("PNG", "WEBP", "TIFF") else 0.1  # of palettes and of compression with loss
    assert some.probabilities[0] == pytest.approx(stills.max(), abs=tolerance)


def test_pictures_of_pillow_are_judged_whole_or_by_the_frame_that_was_sought(
    guard: Guard, scenes: list[Image.Image], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(animation("PNG", reel(scenes, 5, 3)))
    with Image.open(tmp_path / "a.png") as picture:
        found = guard.predict(picture)
        assert found.seen == ({"frame": 3, "frames": 5, "frames_judged": 5},)
        assert picture.tell() == 0
        picture.seek(1)
        sought = guard.predict(picture)
        assert sought.seen == ({"frame": None, "frames": 1, "frames_judged": 1},)
        assert sought.probabilities == pytest.approx(guard.predict(reel(scenes, 5, 3)[1]).probabilities, abs=1e-5)
        picture.seek(3)
        picture.load()
    assert guard.predict(picture).probabilities == pytest.approx(found.probabilities, abs=1e-5)  # its file is closed
    paths = guard.predict([tmp_path / "a.png", tmp_path / "none.png"])
    assert paths.seen == (found.seen[0], dict.fromkeys(found.seen[0]))
    rows = list(paths.rows())
    assert [row["frame"] for row in rows] == [3, None]
    assert "frame" not in next(iter(guard.predict(np.zeros((1, guard.dim)) + guard.dim**-0.5).rows()))
    with pytest.raises(ConfigError, match="frames is 'some'"):
        guard.predict(picture, frames="some")


def test_animations_without_end_are_unreadable_and_not_waited_for(guard: Guard) -> None:
    with pytest.raises(UnreadableImage, match="too long to go through"):
        ImageJudge(guard, max_pixels=4_000_000).look(tiny_gif(500, side=2000))
    assert ImageJudge(guard, max_pixels=4_000_000, frames="first").look(tiny_gif(500, side=2000)).frames == 500


class _Levels:
    """Of a frame's first pixel the logit; counts what goes through at once."""

    def __init__(self) -> None:
        self.encoder = FakeEncoder(batch_size=3)

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        return embeddings[:, 0].astype(np.float64)


@given(st.lists(st.integers(0, 255), min_size=2, max_size=20))
def test_the_first_of_the_highest_wins_and_few_are_held(levels: list[int]) -> None:
    made = _Levels()
    given, forwarded = 0, made.encoder.batches

    def frames():  # type: ignore[no-untyped-def]
        nonlocal given
        for number, level in enumerate(levels):
            assert given - sum(forwarded) < 3  # no more wait than go through at once
            given += 1
            yield Frame(number, len(levels), Image.new("RGB", (4, 4), (level, 0, 0)))

    encoder: Encoder = made.encoder  # type: ignore[assignment]
    seen = likeliest(frames(), EncoderSight(encoder, made.logits))
    assert (seen.frame, seen.frames, seen.judged) == (levels.index(max(levels)), len(levels), len(levels))
    assert seen.pixels[0, 0, 0] == max(levels)
    assert sum(forwarded) == len(levels)
