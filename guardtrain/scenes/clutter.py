"""Things that lie about in a scene and have nothing to do with its label or its context."""

from __future__ import annotations

from collections.abc import Callable

from guardtrain.scenes.canvas import Colour, Pen, shade

Drawing = Callable[[Pen, Colour], None]


def _ball(pen: Pen, colour: Colour) -> None:
    pen.disc(0, 0, 0.8, colour)
    pen.stroke(((-0.75, 0.2), (0, 0.05), (0.75, 0.2)), shade(colour, 0.7), 0.16)


def _box(pen: Pen, colour: Colour) -> None:
    pen.box(-0.8, -0.5, 0.8, 0.8, colour)
    pen.polygon(((-0.8, -0.5), (-0.5, -0.85), (1.0, -0.85), (0.8, -0.5)), shade(colour, 1.3))


def _book(pen: Pen, colour: Colour) -> None:
    pen.box(-0.9, -0.25, 0.9, 0.45, colour)
    pen.box(-0.8, 0.05, 0.95, 0.3, (236, 232, 220))


def _mug(pen: Pen, colour: Colour) -> None:
    pen.ring(0.6, 0.05, 0.34, colour, 0.16)
    pen.box(-0.6, -0.6, 0.5, 0.75, colour)


def _plant(pen: Pen, colour: Colour) -> None:
    pen.stroke(((0, 0.3), (-0.5, -0.7)), (70, 140, 76), 0.22)
    pen.stroke(((0, 0.3), (0.05, -0.95)), (82, 152, 80), 0.22)
    pen.stroke(((0, 0.3), (0.6, -0.6)), (60, 126, 70), 0.22)
    pen.polygon(((-0.5, 0.2), (0.5, 0.2), (0.35, 0.95), (-0.35, 0.95)), colour)


def _cone(pen: Pen, colour: Colour) -> None:
    pen.polygon(((-0.1, -0.95), (0.1, -0.95), (0.55, 0.75), (-0.55, 0.75)), colour)
    pen.polygon(((-0.25, -0.3), (0.25, -0.3), (0.36, 0.1), (-0.36, 0.1)), (242, 240, 236))
    pen.box(-0.8, 0.75, 0.8, 0.92, shade(colour, 0.8))


def _bag(pen: Pen, colour: Colour) -> None:
    pen.ring(0, -0.5, 0.36, shade(colour, 0.6), 0.13)
    pen.polygon(((-0.6, -0.45), (0.6, -0.45), (0.8, 0.8), (-0.8, 0.8)), colour)


def _hat(pen: Pen, colour: Colour) -> None:
    pen.disc(0, 0.4, 0.98, colour, 0.26)
    pen.polygon(((-0.5, 0.35), (-0.42, -0.6), (0.42, -0.6), (0.5, 0.35)), colour)
    pen.box(-0.5, 0.08, 0.5, 0.32, shade(colour, 0.55))


def _bucket(pen: Pen, colour: Colour) -> None:
    pen.polygon(((-0.75, -0.5), (0.75, -0.5), (0.5, 0.85), (-0.5, 0.85)), colour)
    pen.disc(0, -0.5, 0.75, shade(colour, 0.6), 0.2)


def _umbrella(pen: Pen, colour: Colour) -> None:
    pen.stroke(((0, -0.3), (0, 0.95)), (60, 54, 52), 0.13)
    pen.polygon(((-0.95, -0.05), (-0.6, -0.65), (0, -0.92), (0.6, -0.65), (0.95, -0.05)), colour)


CLUTTER: dict[str, Drawing] = {
    "ball": _ball,
    "box": _box,
    "book": _book,
    "mug": _mug,
    "plant": _plant,
    "cone": _cone,
    "bag": _bag,
    "hat": _hat,
    "bucket": _bucket,
    "umbrella": _umbrella,
}

COLOURS: dict[str, Colour] = {
    "red": (200, 62, 54),
    "orange": (226, 140, 50),
    "yellow": (226, 202, 84),
    "green": (88, 156, 84),
    "blue": (70, 112, 186),
    "purple": (140, 88, 162),
    "white": (228, 226, 218),
    "brown": (132, 96, 68),
    "grey": (128, 130, 134),
}
