"""Frames of animations: which are looked at, that they show what the file shows, and what is refused."""

from __future__ import annotations

import io
import weakref
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from guardtrain.errors import ConfigError
from guardtrain.sources.decoding import decode, is_animation, opened
from guardtrain.sources.frames import MAX_FRAMES, chosen, decoded_pixels, frames_of, most_frames
from tests.sources.animations import KINDS, animation, coloured, colours, tiny_gif, two_eyes

Seen = list[tuple[int, int, tuple[int, int, int]]]


def seen(content: bytes, most: int | None, **options: int) -> Seen:
    """Number, count and colour of each frame."""
    return [
        (frame.number, frame.count, tuple(np.asarray(frame.image).reshape(-1, 3).mean(0).round().astype(int).tolist()))
        for frame in frames_of(content, most=most, **options)
    ]


@given(st.integers(1, 400), st.none() | st.integers(1, 50))
def test_frames_are_spread_from_the_first_to_the_last(count: int, most: int | None) -> None:
    numbers = chosen(count, most)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(count, most or count)
    assert numbers[0] == 0
    if most != 1:
        assert numbers[-1] == count - 1
        steps = np.diff(numbers)
        assert len(steps) == 0 or steps.max() - steps.min() <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [1, 3, 8, None])
def test_each_frame_shows_what_the_file_shows(kind: str, most: int | None) -> None:
    found = seen(coloured(kind, 11), most)
    assert [number for number, _, _ in found] == chosen(11, most)
    assert {count for _, count, _ in found} == {11}
    for number, _, colour in found:
        assert colour == pytest.approx(colours(11)[number], abs=12)


@pytest.mark.parametrize("most", [1, 8, None])
def test_still_images_are_one_frame(most: int | None) -> None:
    for kind in ("JPEG", *KINDS):
        file = io.BytesIO()
        Image.new("RGB", (32, 24), (200, 40, 90)).save(file, kind)
        ((number, count, colour),) = seen(file.getvalue(), most)
        assert (number, count) == (0, 1)
        assert colour == pytest.approx((200, 40, 90), abs=6)
    # several pictures of one shot
    content = two_eyes()
    with opened(content) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("MPO", 2)
        assert not is_animation(image)
    ((number, count, colour),) = seen(content, most)
    assert (number, count) == (0, 1)
    assert colour == pytest.approx((255, 0, 0), abs=6)


def test_pages_may_differ_in_size_and_each_is_checked() -> None:
    pages = [Image.new("RGB", size, "red") for size in ((8, 8), (100, 60), (20, 10))]
    content = animation("TIFF", pages)
    assert [frame.image.size for frame in frames_of(content, most=None)] == [(8, 8), (100, 60), (20, 10)]
    with pytest.raises(OSError, match="100 × 60 pixels; the limit is 5,000"):
        seen(content, None, max_pixels=5_000)
    assert seen(content, 1, max_pixels=5_000)[0][:2] == (0, 3)


def test_images_of_a_heif_are_gone_through_from_the_one_that_is_meant() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    file = io.BytesIO()
    made = [Image.new("RGB", (64, 64), colour) for colour in colours(3)]
    made[0].save(file, "HEIF", save_all=True, append_images=made[1:], primary_index=1, quality=95)
    assert np.asarray(decode(file.getvalue()))[30, 30] == pytest.approx(colours(3)[1], abs=12)
    found = seen(file.getvalue(), 8)
    assert [number for number, _, _ in found] == [0, 1, 2]
    for number, _, colour in found:
        assert colour == pytest.approx(colours(3)[number], abs=12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_a_file_that_ends_early_is_judged_by_what_there_is(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 24, 32, 3), dtype=np.uint8)
    whole = animation(kind, [Image.fromarray(frame) for frame in noise])
    for share in (0.3, 0.55, 0.8):
        content = whole[: int(share * len(whole))]
        try:
            found = seen(content, 4)
        except OSError as error:
            assert kind == "TIFF", error  # its directory stands at the end, or after each page
            continue
        numbers = [number for number, _, _ in found]
        assert numbers == sorted(numbers) or kind == "PNG"
        assert numbers[0] == 0
        assert 1 < len(numbers) <= 8
        assert max(numbers) <= 12 * share
    assert len(seen(whole, 4)) == 4


def test_a_png_that_says_it_has_more_frames_than_it_has_hides_none() -> None:
    content = coloured("PNG", 5)
    at = content.index(b"acTL") + 4
    lying = bytearray(content)
    lying[at : at + 4] = (4000).to_bytes(4, "big")
    crc = zlib.crc32(bytes(lying[at - 4 : at + 8]))
    lying[at + 8 : at + 12] = crc.to_bytes(4, "big")
    found = seen(bytes(lying), 8)
    assert sorted(number for number, _, _ in found) == [0, 1, 2, 3, 4]
    assert found[-1][1] == 5


@given(st.sampled_from(KINDS), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12), st.floats(0, 1))
@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_kind_leaves_frames_or_an_oserror(kind: str, flips: list[tuple[float, int]], kept: float) -> None:
    """Where the first frame can be decoded, it is looked at, whatever follows."""
    content = bytearray(_WHOLE[kind])
    for place, value in flips:
        content[int(place * (len(content) - 1))] = value
    damaged = bytes(content[: int(kept * len(content))])
    try:
        first = np.array(decode(damaged))
    except OSError:
        with pytest.raises(OSError, match=r"."):
            list(frames_of(damaged, most=3))
        return
    numbers = []
    try:
        for frame in frames_of(damaged, most=3):
            assert frame.image.mode == "RGB"
            assert frame.number or (np.asarray(frame.image) == first).all()
            numbers.append(frame.number)
    except OSError as error:
        assert "too l" in str(error)  # a length or a size that the damage made up
        return
    assert 0 in numbers
    assert len(set(numbers)) == len(numbers)


_WHOLE = {kind: coloured(kind, 5) for kind in KINDS}


def test_what_would_take_minutes_is_refused_before_it_is_decoded() -> None:
    said = r"too long to go through: .*; frames=first judges its first frame alone"
    with pytest.raises(OSError, match=said) as caught:
        seen(tiny_gif(300, side=3000), 8, max_pixels=9_000_000)
    assert "300 frames, 3000 × 3000 pixels" in str(caught.value)
    with pytest.raises(OSError, match=f"more than {MAX_FRAMES:,} frames"):
        seen(tiny_gif(MAX_FRAMES + 1), 8)
    assert seen(tiny_gif(MAX_FRAMES + 1), 1)[0][0] == 0
    assert seen(tiny_gif(300, side=3000), 1)[0][:2] == (0, 300)
    assert len(seen(tiny_gif(300, side=300), 8)) == 8
    sizes = [(tiny_gif(300, side=300), 8), (tiny_gif(300, side=300), 1), (tiny_gif(300, side=9000), 8), (b"?", 8)]
    assert [decoded_pixels(content, most) for content, most in sizes] == [300**3, 300**2, 0, 0]
    assert decoded_pixels(coloured("TIFF", 11), 8) == 8 * 32 * 24
    assert decoded_pixels(two_eyes(), 8) == 32 * 24


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_not_held(kind: str) -> None:
    """A thousand frames of a megapixel would be three gigabytes; the file's own image may be there all the time."""
    held: list[weakref.ref[Image.Image]] = []
    for frame in frames_of(coloured(kind, 30), most=None):
        assert len({id(image) for ref in held if (image := ref()) is not None}) <= 1
        held.append(weakref.ref(frame.image))
    assert len(held) == 30


@pytest.mark.parametrize("setting", ["", "none", "0", "-1", "2.5", "²", str(MAX_FRAMES + 1)])
def test_other_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="it is first, all, or how many frames"):
        most_frames(setting)
