"""Where a scene takes place: twelve backgrounds with props, six typical of safe images and six of unsafe ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from guardtrain.scenes.canvas import Colour, Dice, Pen, shade

Backdrop = Callable[[Pen, Dice], None]


@dataclass(frozen=True)
class Context:
    """A background. `typical_label` is the label it goes with in the `real` pool (1 is unsafe, 0 is safe)."""

    name: str
    typical_label: int
    draw: Backdrop


def _ground(pen: Pen, dice: Dice, upper: Colour, lower: Colour) -> float:
    """Two areas, wall or sky above floor or ground, the lower one in two tones; returns the height of the horizon."""
    horizon = dice.uniform(0.5, 0.74)
    upper, lower = dice.near(upper, 22), dice.near(lower, 22)
    pen = pen.at(0, 0, 1)
    pen.outlined = False
    pen.box(0, 0, 1, horizon, upper)
    pen.box(0, horizon, 1, 1, lower)
    pen.box(0, horizon, 1, horizon + dice.uniform(0.02, 0.12), shade(lower, 0.92))
    return horizon


def _tiles(pen: Pen, dice: Dice, bottom: float, colour: Colour) -> None:
    step = dice.uniform(0.1, 0.16)
    for k in range(1, int(1 / step) + 1):
        pen.stroke(((k * step, 0), (k * step, bottom)), colour, 0.012)
    for k in range(1, int(bottom / step) + 1):
        pen.stroke(((0, k * step), (1, k * step)), colour, 0.012)


def _bricks(pen: Pen, dice: Dice, bottom: float, colour: Colour) -> None:
    step = dice.uniform(0.08, 0.12)
    for k in range(1, int(bottom / step) + 1):
        y = k * step
        pen.stroke(((0, y), (1, y)), colour, 0.014)
        offset = step * (k % 2)
        for j in range(4):
            x = offset + 0.26 * j
            pen.stroke(((x, y - step), (x, y)), colour, 0.014)


def _window(pen: Pen, dice: Dice, glass: Colour, frame: Colour) -> None:
    x, y, w, h = dice.uniform(0.02, 0.7), dice.uniform(0.04, 0.16), dice.uniform(0.2, 0.3), dice.uniform(0.18, 0.3)
    pen.box(x, y, x + w, y + h, frame)
    pen.box(x + 0.02, y + 0.02, x + w - 0.02, y + h - 0.02, glass)
    pen.stroke(((x + w / 2, y), (x + w / 2, y + h)), frame, 0.02)


def _tree(pen: Pen, x: float, base: float, size: float, leaves: Colour, trunk: Colour) -> None:
    pen.box(x - 0.025, base - size * 0.6, x + 0.025, base, trunk)
    pen.disc(x, base - size, size * 0.5, leaves, size * 0.6)


def _crate(pen: Pen, x: float, base: float, size: float, colour: Colour) -> None:
    pen.box(x, base - size, x + size, base, colour)
    pen.stroke(((x, base - size), (x + size, base)), shade(colour, 0.7), 0.025)


def _kitchen(pen: Pen, dice: Dice) -> None:
    wall = (226, 214, 186)
    horizon = _ground(pen, dice, wall, (176, 140, 104))
    _tiles(pen, dice, horizon, shade(wall, 0.88))
    _window(pen, dice, (170, 210, 232), (250, 248, 240))
    pen.box(0, horizon - 0.04, 1, horizon + 0.03, dice.near((150, 108, 74)))
    x = dice.uniform(0.0, 0.75)
    pen.box(x, horizon - 0.2, x + 0.2, horizon - 0.04, dice.near((196, 200, 206)))
    pen.disc(x + 0.1, horizon - 0.12, 0.05, (90, 92, 98))


def _living_room(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (204, 184, 176), (158, 104, 74))
    for k in range(5):
        x = 0.1 + 0.2 * k
        pen.stroke(((x, 0), (x, horizon)), (192, 172, 166), 0.02)
    pen.box(*_framed(dice), dice.near((120, 150, 150), 40))
    sofa, x = dice.near((110, 128, 160), 40), dice.uniform(-0.1, 0.5)
    pen.box(x, horizon - 0.16, x + 0.55, horizon + 0.1, sofa)
    pen.box(x - 0.05, horizon - 0.06, x + 0.05, horizon + 0.14, shade(sofa, 0.8))


def _framed(dice: Dice) -> tuple[float, float, float, float]:
    x, y = dice.uniform(0.05, 0.7), dice.uniform(0.06, 0.16)
    return x, y, x + dice.uniform(0.14, 0.24), y + dice.uniform(0.12, 0.2)


def _office(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (208, 216, 220), (124, 136, 146))
    for k in range(3):
        x = 0.06 + 0.32 * k
        pen.box(x, 0.06, x + 0.26, 0.26, (184, 212, 230))
    x = dice.uniform(0.0, 0.6)
    pen.box(x, horizon - 0.05, x + 0.42, horizon, (222, 206, 176))
    pen.box(x + 0.1, horizon - 0.22, x + 0.3, horizon - 0.07, (58, 62, 72))
    pen.box(x + 0.04, horizon, x + 0.08, horizon + 0.2, (130, 120, 110))


def _classroom(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (228, 222, 190), (196, 160, 110))
    x = dice.uniform(0.0, 0.3)
    pen.box(x, 0.06, x + 0.66, 0.4, (146, 110, 72))
    pen.box(x + 0.03, 0.09, x + 0.63, 0.37, (52, 98, 78))
    pen.stroke(((x + 0.1, 0.18), (x + 0.4, 0.16)), (214, 220, 212), 0.015)
    pen.stroke(((x + 0.1, 0.26), (x + 0.3, 0.27)), (214, 220, 212), 0.015)
    for k in range(2):
        d = dice.uniform(0.0, 0.4) + 0.45 * k
        pen.box(d, horizon, d + 0.2, horizon + 0.05, (170, 126, 80))


def _park(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (160, 206, 236), (110, 168, 78))
    pen.disc(dice.uniform(0.1, 0.9), 0.12, 0.12, (240, 244, 246), 0.06)
    for _ in range(3):
        _tree(pen, dice.uniform(), horizon + 0.03, dice.uniform(0.2, 0.34), dice.near((66, 132, 62), 26), (112, 82, 58))
    pen.polygon(((0.4, 1), (0.7, 1), (dice.uniform(0.3, 0.7), horizon)), (214, 198, 156))


def _beach(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (150, 212, 240), (236, 214, 160))
    pen.box(0, horizon - 0.16, 1, horizon, dice.near((58, 148, 182)))
    pen.disc(dice.uniform(0.1, 0.9), 0.14, 0.08, (252, 232, 130))
    x, canopy = dice.uniform(0.05, 0.9), dice.near((220, 90, 80), 40)
    pen.stroke(((x, horizon + 0.14), (x, horizon - 0.14)), (230, 226, 220), 0.02)
    pen.polygon(((x - 0.18, horizon - 0.1), (x, horizon - 0.28), (x + 0.18, horizon - 0.1)), canopy)


def _alley(pen: Pen, dice: Dice) -> None:
    wall = (120, 74, 62)
    horizon = _ground(pen, dice, wall, (74, 74, 82))
    _bricks(pen, dice, horizon, shade(wall, 0.72))
    x = dice.uniform(0.0, 0.75)
    pen.box(x, horizon - 0.2, x + 0.2, horizon + 0.06, dice.near((60, 84, 70)))
    pen.box(x - 0.02, horizon - 0.24, x + 0.22, horizon - 0.18, (48, 60, 54))
    pen.disc(dice.uniform(0.1, 0.9), horizon + 0.18, 0.16, (96, 100, 114), 0.035)


def _warehouse(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (118, 126, 132), (104, 98, 90))
    for k in range(12):
        x = 0.04 + 0.08 * k
        pen.stroke(((x, 0), (x, horizon)), (102, 110, 116), 0.02)
    for _ in range(3):
        size = dice.uniform(0.14, 0.26)
        _crate(pen, dice.uniform(-0.05, 0.9), horizon + 0.06, size, dice.near((152, 118, 72), 24))


def _basement(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (88, 90, 82), (66, 60, 56))
    for k in range(2):
        y = dice.uniform(0.06, 0.14) + 0.12 * k
        pen.stroke(((0, y), (1, y)), dice.near((140, 96, 70)), 0.035)
    x = dice.uniform(0.15, 0.85)
    pen.stroke(((x, 0), (x, 0.16)), (40, 40, 42), 0.015)
    pen.disc(x, 0.2, 0.05, (240, 226, 150))
    x = dice.uniform(0.0, 0.6)
    for k in range(4):
        pen.box(
            x + 0.08 * k, horizon - 0.06 * k, x + 0.5, horizon + 0.06 - 0.06 * k, shade((112, 108, 102), 1 - 0.08 * k)
        )


def _wasteland(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (176, 160, 140), (134, 110, 82))
    for _ in range(2):
        x, w = dice.uniform(-0.1, 0.9), dice.uniform(0.16, 0.3)
        h = dice.uniform(0.14, 0.34)
        pen.polygon(
            ((x, horizon), (x, horizon - h), (x + w * 0.4, horizon - h * 0.7), (x + w, horizon - h), (x + w, horizon)),
            dice.near((112, 102, 96)),
        )
    x = dice.uniform(0.1, 0.9)
    pen.stroke(((x, horizon), (x + 0.02, horizon - 0.24)), (70, 56, 46), 0.025)
    pen.stroke(((x + 0.01, horizon - 0.14), (x + 0.12, horizon - 0.26)), (70, 56, 46), 0.02)
    pen.disc(dice.uniform(0.1, 0.9), horizon + 0.1, 0.1, (108, 92, 76), 0.04)


def _rooftop(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (34, 40, 74), (82, 80, 92))
    pen.disc(dice.uniform(0.1, 0.9), 0.12, 0.055, (232, 230, 210))
    for k in range(4):
        x, top = 0.26 * k + dice.uniform(-0.05, 0.02), horizon - dice.uniform(0.14, 0.4)
        pen.box(x, top, x + 0.2, horizon, dice.near((52, 54, 82), 10))
        for j in range(2):
            pen.box(x + 0.04 + 0.08 * j, top + 0.05, x + 0.08 + 0.08 * j, top + 0.09, (236, 204, 106))
    pen.stroke(((0, horizon), (1, horizon)), (120, 116, 124), 0.03)


def _tunnel(pen: Pen, dice: Dice) -> None:
    horizon = _ground(pen, dice, (92, 86, 98), (58, 56, 64))
    x = dice.uniform(0.3, 0.7)
    pen.disc(x, horizon, 0.46, (68, 62, 76), 0.5)
    pen.disc(x, horizon, 0.24, (38, 34, 46), 0.28)
    lower = dice.near((62, 60, 66), 10)
    pen.box(0, horizon, 1, 1, lower)
    for k in range(4):
        pen.box(0.08 + 0.26 * k, horizon + 0.16, 0.2 + 0.26 * k, horizon + 0.18, (196, 180, 92))


CONTEXTS: tuple[Context, ...] = (
    Context("kitchen", 0, _kitchen),
    Context("living room", 0, _living_room),
    Context("office", 0, _office),
    Context("classroom", 0, _classroom),
    Context("park", 0, _park),
    Context("beach", 0, _beach),
    Context("alley", 1, _alley),
    Context("warehouse", 1, _warehouse),
    Context("basement", 1, _basement),
    Context("wasteland", 1, _wasteland),
    Context("rooftop", 1, _rooftop),
    Context("tunnel", 1, _tunnel),
)

TYPICAL: tuple[tuple[Context, ...], tuple[Context, ...]] = (
    tuple(c for c in CONTEXTS if c.typical_label == 0),
    tuple(c for c in CONTEXTS if c.typical_label == 1),
)
"""Contexts typical of label 0 and of label 1."""
