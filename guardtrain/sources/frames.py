"""Which frames of an animation are looked at: of GIF, APNG, WebP and AVIF, pages of a TIFF, images of a HEIF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from guardtrain.errors import ConfigError
from guardtrain.sources.decoding import MAX_PIXELS, check_size, is_animation, opened, rgb

FIRST, ALL = "first", "all"
DEFAULT_FRAMES = "8"
# Stepping through takes some 0.1 ms a frame, however small it is; at ten a second these are 16 minutes.
MAX_FRAMES = 10_000
# An animation may take as many pixels to decode as so many still images of the largest size there may be.
STILLS = 4
_AT_WILL = ("TIFF", "HEIF")  # their frames are decoded without those before
_SHOWN = 3  # ids of animations that a line names
_GIF_FRAME = b"\x00,"  # the end of a block and the start of an image: no frame but the first begins otherwise


@dataclass(frozen=True)
class Frame:
    """A frame of an animation, or a still image.

    Args:
        number: from 0.
        count: how many the file has: 1 for a still image.
        image: RGB; gone when the next frame is asked for.
    """

    number: int
    count: int
    image: Image.Image


def most_frames(setting: str | int) -> int | None:
    """How many frames a setting `frames` asks for: `first` is 1, `all` is None.

    Raises:
        ConfigError: neither of them, and no whole number above 0.

    >>> most_frames("first"), most_frames("8"), most_frames("all")
    (1, 8, None)
    """
    text = str(setting).strip().lower()
    if text == ALL:
        return None
    if text == FIRST:
        return 1
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= MAX_FRAMES):
        raise ConfigError(
            f"frames is '{setting}'; it is {FIRST}, {ALL}, or how many frames of an animation are looked at, such as "
            f"frames={DEFAULT_FRAMES}."
        )
    return int(text)


def chosen(count: int, most: int | None) -> list[int]:
    """At most `most` of `count` frames, spread evenly, the first and the last among them; all for None.

    >>> chosen(10, 4), chosen(3, 8), chosen(5, 1)
    ([0, 3, 6, 9], [0, 1, 2], [0])
    """
    if most is None or most >= count:
        return list(range(count))
    if most == 1:
        return [0]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def first_frame(content: bytes, needed: tuple[int, int] | None = None) -> tuple[Image.Image, bool]:
    """The image in the bytes of a file as RGB, and whether it is the first frame of an animation.

    Args:
        content, needed: see `guardtrain.sources.decoding.decode`.

    Raises:
        OSError: see `decode`.
    """
    with opened(content, needed) as image:
        return rgb(image), is_animation(image)


def holds_animation(content: bytes) -> bool:
    """Whether the bytes of a file are an animation, by its headers; what is no image is none."""
    try:
        with opened(content) as image:
            return is_animation(image)
    except OSError:
        return False


def by_first_frame(what: str, done: str, ids: Sequence[str]) -> str:
    """The line that says which animations went by their first frame, where no other is looked at.

    Args:
        what: whose images.
        done: what was done with them.
        ids: theirs, one or more.

    >>> by_first_frame("photos", "embedded", ["a.gif"])
    'photos: 1 animation is embedded by the first frame, of which a label is taken to be: a.gif'
    """
    number = "1 animation is" if len(ids) == 1 else f"{len(ids):,} animations are"
    names = ", ".join(map(str, ids[:_SHOWN])) + (", …" if len(ids) > _SHOWN else "")
    return f"{what}: {number} {done} by the first frame, of which a label is taken to be: {names}"


def frames_of(
    content: bytes, needed: tuple[int, int] | None = None, most: int | None = 1, max_pixels: int = MAX_PIXELS
) -> Iterator[Frame]:
    """The frames of an image file that are looked at, one after another; see `frames_in`.

    Args:
        content, needed: see `guardtrain.sources.decoding.decode`.
        most: how many frames at most; None for all.
        max_pixels: of a frame.

    Raises:
        OSError: see `decode`; an animation that takes too long to go through.
    """
    with opened(content, needed, max_pixels) as image:
        yield from frames_in(image, most, max_pixels, MAX_FRAMES + 1 if _is_crowded(image, content) else None)


def frames_in(
    image: Image.Image, most: int | None, max_pixels: int = MAX_PIXELS, count: int | None = None
) -> Iterator[Frame]:
    """The frames of an image that Pillow has opened; of a still image it alone.

    Where the file ends before the frames that it says it has, those looked at are spread over what there is. A frame
    that is damaged is left out.

    Args:
        image, most, max_pixels: see `frames_of`.
        count: how many frames it has, where that is known.

    Raises:
        OSError: no frame can be decoded, or there are too many, or too large ones, to go through.
    """
    if not is_animation(image):
        yield Frame(0, 1, rgb(image))
        return
    count = _counted(image) if count is None else count
    if most == 1:
        yield Frame(0, count, rgb(image))  # as it was opened: of a HEIF with several images the one that is meant
        return
    _refuse_long(image, count, most, max_pixels)
    tried: set[int] = set()
    told, damage = 0, OSError("damaged: none of its frames can be decoded")
    left, at = STILLS * max_pixels, image.tell()
    while todo := [number for number in chosen(count, most) if number not in tried]:
        for number in todo:
            try:
                at = _step_to(image, at, number)
            except _Ended as ended:
                at = count  # nobody knows where a failed step leaves it: from the start, and spread over what there is
                count = ended.frames
                break
            tried.add(number)
            check_size(image, max_pixels)
            left -= image.width * image.height
            if left < 0:
                raise OSError(_too_long(image, count))
            try:
                picture = rgb(image)
            except MemoryError:
                raise
            except Exception as error:  # of any kind, see `opened`
                damage = error if isinstance(error, OSError) else damage
                continue
            told += 1
            yield Frame(number, count, picture)
    if not told:
        raise damage


def decoded_pixels(content: bytes, most: int | None, max_pixels: int = MAX_PIXELS) -> int:
    """How many pixels `frames_of` would decode, by the file's headers; 0 for a file that it refuses."""
    try:
        with opened(content, None, max_pixels) as image:
            if most == 1 or not is_animation(image):
                return image.width * image.height
            count = MAX_FRAMES + 1 if _is_crowded(image, content) else _counted(image)
            _refuse_long(image, count, most, max_pixels)
            return _to_decode(image, count, most)
    except OSError:
        return 0


class _Ended(Exception):
    """There is no further frame."""

    def __init__(self, frames: int) -> None:
        super().__init__(frames)
        self.frames = frames


def _step_to(image: Image.Image, at: int, number: int) -> int:
    """Go on to a frame one by one, to know where the file ends; returns where it stands.

    Raises:
        _Ended: at fewer frames than that.
    """
    steps = range(at + 1, number + 1) if at <= number else range(number + 1)
    for step in steps:
        try:
            image.seek(step)
        except MemoryError:
            raise
        except Exception:  # EOFError, and what damage leads to
            raise _Ended(step) from None
    return number


def _counted(image: Image.Image) -> int:
    """The number of frames; of pages, which have to be gone through one by one, no more than one too many."""
    if image.format != "TIFF":
        with suppress(Exception):  # of damage somewhere behind
            return int(getattr(image, "n_frames", 1))
    try:
        _step_to(image, image.tell(), 0)
        _step_to(image, 0, MAX_FRAMES)
        count = MAX_FRAMES + 1
    except _Ended as ended:
        count = max(1, ended.frames)
    image.seek(0)
    return count


def _refuse_long(image: Image.Image, count: int, most: int | None, max_pixels: int) -> None:
    """Raise OSError for what would take minutes to go through; nothing has been decoded yet."""
    if count > MAX_FRAMES or _to_decode(image, count, most) > STILLS * max_pixels:
        raise OSError(_too_long(image, count))


def _to_decode(image: Image.Image, count: int, most: int | None) -> int:
    """How many pixels have to be decoded for the frames that are looked at."""
    frames = min(count, most or count) if image.format in _AT_WILL else count
    return frames * image.width * image.height


def _is_crowded(image: Image.Image, content: bytes) -> bool:
    """Whether a GIF has so many frames that counting them would take long."""
    return image.format == "GIF" and content.count(_GIF_FRAME) > MAX_FRAMES


def _too_long(image: Image.Image, count: int) -> str:
    number = f"more than {MAX_FRAMES:,}" if count > MAX_FRAMES else f"{count:,}"
    return (
        f"an animation too long to go through: {number} frames, {image.width} × {image.height} pixels; "
        f"frames={FIRST} judges its first frame alone"
    )
