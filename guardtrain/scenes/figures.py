"""Stand-ins that are people and animals, all of them schematic (O2, O4, O8)."""

from __future__ import annotations

from guardtrain.scenes.canvas import BLACK, METAL, Look, Pen, Point, shade

# O2: what a hand holds; a fist against an open hand


def figure(pen: Pen, look: Look) -> None:
    """A standing figure whose raised hand is at (0.55, -0.25)."""
    pen.box(-0.75, 0.9, -0.5, 1.7, shade(look.dull, 0.6))
    pen.box(-0.35, 0.9, -0.1, 1.7, shade(look.dull, 0.6))
    pen.polygon(((-0.8, 0.0), (-0.05, 0.0), (0.0, 1.0), (-0.85, 1.0)), look.second)
    pen.disc(-0.42, -0.35, 0.33, look.skin)
    pen.stroke(((-0.15, 0.15), (0.3, 0.3), (0.55, -0.05)), look.second, 0.2)
    pen.disc(0.55, -0.1, 0.14, look.skin)


def knife(pen: Pen, look: Look) -> None:
    pen.box(0.46, -0.3, 0.64, 0.1, look.dull)
    pen.polygon(((0.44, -0.3), (0.7, -0.3), (0.7, -0.8), (0.5, -1.25)), METAL)


def spoon(pen: Pen, look: Look) -> None:
    pen.box(0.46, -0.3, 0.64, 0.1, look.dull)
    pen.stroke(((0.55, -0.3), (0.55, -0.75)), METAL, 0.12)
    pen.disc(0.55, -0.97, 0.2, METAL, 0.29)


def sleeve(pen: Pen, look: Look) -> None:
    pen.polygon(((-1.3, 0.75), (-0.85, 1.25), (0.0, 0.45), (-0.35, -0.02)), look.main)


def fist(pen: Pen, look: Look) -> None:
    edge = shade(look.skin, 0.62)
    pen.polygon(((-0.4, -0.1), (0.25, -0.72), (0.85, -0.1), (0.1, 0.55)), look.skin)
    for k in range(3):
        x = 0.05 + 0.24 * k
        pen.stroke(((x, -0.5 + 0.2 * k), (x - 0.24, -0.22 + 0.22 * k)), edge, 0.09)


def open_hand(pen: Pen, look: Look) -> None:
    pen.polygon(((-0.4, -0.1), (0.05, -0.5), (0.5, -0.05), (0.1, 0.55)), look.skin)
    for tip in ((0.05, -1.05), (0.5, -0.95), (0.85, -0.65), (0.95, -0.15)):
        pen.stroke(((0.12 + 0.25 * tip[0], -0.1 + 0.25 * tip[1]), tip), look.skin, 0.19)


# O4: a schematic figure whose torso is a bare patch or a striped shirt


def legs_and_head(pen: Pen, look: Look) -> None:
    pen.box(-0.36, 0.6, -0.06, 1.4, look.dull)
    pen.box(0.06, 0.6, 0.36, 1.4, look.dull)
    pen.disc(0.0, -0.92, 0.34, look.skin)
    pen.stroke(((-0.4, -0.42), (-0.72, 0.3)), look.skin, 0.2)
    pen.stroke(((0.4, -0.42), (0.72, 0.3)), look.skin, 0.2)


_TORSO: tuple[Point, ...] = ((-0.48, -0.58), (0.48, -0.58), (0.38, 0.66), (-0.38, 0.66))


def bare(pen: Pen, look: Look) -> None:
    pen.polygon(_TORSO, look.skin)
    pen.disc(0.0, 0.3, 0.07, shade(look.skin, 0.6))


def shirt(pen: Pen, look: Look) -> None:
    pen.polygon(_TORSO, look.main)
    for y in (-0.3, 0.02, 0.34):
        pen.stroke(((-0.42, y), (0.42, y)), look.second, 0.13)


def mannequin(pen: Pen, look: Look) -> None:
    pen.box(-0.06, 0.8, 0.06, 1.45, BLACK)
    pen.box(-0.4, 1.38, 0.4, 1.5, BLACK)
    pen.disc(0.0, -0.95, 0.26, look.skin, 0.32)
    pen.polygon(((-0.45, -0.55), (0.45, -0.55), (0.26, 0.1), (0.45, 0.82), (-0.45, 0.82), (-0.26, 0.1)), look.skin)


def undressed(pen: Pen, look: Look) -> None:
    pen.stroke(((0.0, -0.4), (0.0, 0.6)), shade(look.skin, 0.7), 0.08)


def dress(pen: Pen, look: Look) -> None:
    pen.polygon(((-0.3, -0.5), (0.3, -0.5), (0.26, 0.1), (0.75, 1.1), (-0.75, 1.1), (-0.26, 0.1)), look.main)


# O8: an animal behind bars or under a blanket, on a chain or with a bow


def dog(pen: Pen, look: Look) -> None:
    coat = look.skin
    for x in (-0.55, -0.3, 0.2, 0.45):
        pen.box(x - 0.09, 0.3, x + 0.09, 0.9, shade(coat, 0.8))
    pen.disc(-0.05, 0.12, 0.68, coat, 0.36)
    pen.stroke(((-0.65, 0.0), (-0.98, -0.42)), coat, 0.15)
    pen.disc(0.66, -0.34, 0.32, coat)
    pen.polygon(((0.4, -0.42), (0.46, -0.86), (0.66, -0.58)), shade(coat, 0.7))
    pen.box(0.84, -0.34, 1.1, -0.14, shade(coat, 0.9))
    pen.disc(0.74, -0.4, 0.06, BLACK)


def bars(pen: Pen, look: Look) -> None:
    for k in range(5):
        x = -0.85 + 0.42 * k
        pen.stroke(((x, -0.95), (x, 0.98)), look.dull, 0.1)
    pen.stroke(((-0.98, -0.95), (1.0, -0.95)), look.dull, 0.12)


def blanket(pen: Pen, look: Look) -> None:
    pen.polygon(((-0.62, -0.28), (0.3, -0.32), (0.38, 0.36), (-0.68, 0.36)), look.main)
    pen.stroke(((-0.64, 0.2), (0.36, 0.2)), look.second, 0.12)


def chain(pen: Pen, look: Look) -> None:
    pen.stroke(((0.44, -0.12), (0.62, 0.04)), look.dull, 0.16)
    for k in range(4):
        pen.ring(0.66 + 0.15 * k, 0.18 + 0.22 * k, 0.12, look.dull, 0.08)


def bow(pen: Pen, look: Look) -> None:
    pen.polygon(((0.54, 0.02), (0.2, -0.26), (0.2, 0.28)), look.main)
    pen.polygon(((0.54, 0.02), (0.9, -0.22), (0.9, 0.3)), look.main)
    pen.disc(0.54, 0.02, 0.12, shade(look.main, 0.6))
