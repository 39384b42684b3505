"""The guard in steps gives what `Guard.predict` gives, and refuses what would take too long."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from guardtrain.errors import GuardError
from guardtrain.guards.guard import Guard
from guardtrain.guards.looking import UnreadableImage
from guardtrain.guards.predicting import ImageJudge
from tests.guards.serving.conftest import files, guard, guard_folder

__all__ = ["files", "guard", "guard_folder"]


def test_steps_are_the_whole(guard: Guard, files: list[bytes]) -> None:
    judge = ImageJudge(guard)
    verdicts = judge.judge(judge.embed([judge.pixels(content) for content in files]), explain=3)
    assert len(verdicts) == len(files)
    for point in guard.points:
        expected = guard.predict(files, point=point, explain=3)
        assert verdicts.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert tuple(verdicts.decisions[point]) == expected.decision
        assert verdicts.category(point) == expected.category
        np.testing.assert_allclose(verdicts.category_probabilities, expected.category_probabilities, atol=1e-5)
        assert expected.neighbours is not None
        found = [[one.id for one in near] for near in verdicts.neighbours]
        assert found == [[one.id for one in near] for near in expected.neighbours]
    one = verdicts.of(4)
    assert one.probabilities.tolist() == [verdicts.probabilities[4]]
    assert one.category("balanced") == verdicts.category("balanced")[4:5]
    assert [list(values) for values in one.decisions.values()] == [[v[4]] for v in verdicts.decisions.values()]
    assert [len(near) for near in one.neighbours] == [3]


def test_what_cannot_be_looked_at_says_why(guard: Guard, files: list[bytes]) -> None:
    judge = ImageJudge(guard, max_pixels=10_000)
    for content, said in ((b"", "empty"), (b"no", "known format"), (files[0][:60], "truncated|damaged|cannot|known")):
        with pytest.raises(UnreadableImage, match=said):
            judge.pixels(content)
    large = io.BytesIO()
    Image.new("L", (101, 100)).save(large, "PNG")
    with pytest.raises(UnreadableImage, match=r"101 × 100 pixels; the limit is 10,000"):
        judge.pixels(large.getvalue())
    with pytest.raises(GuardError, match="unit norm"):
        judge.judge(np.ones((1, guard.dim), dtype=np.float32))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 999)])
def test_images_of_any_shape_are_judged_or_refused(guard: Guard, size: tuple[int, int]) -> None:
    judge = ImageJudge(guard)
    out = io.BytesIO()
    Image.new("RGB", size).save(out, "PNG")
    try:
        pixels = judge.pixels(out.getvalue())
    except UnreadableImage:
        return
    assert pixels.shape == (64, 64, 3)
