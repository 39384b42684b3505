"""Stand-ins that are things: weapons, bottles, blades, fires (O5, O6, O7, O9)."""

from __future__ import annotations

from guardtrain.scenes.canvas import BLACK, METAL, WHITE, Colour, Look, Pen, Point, shade

_GREEN: Colour = (64, 138, 70)


# O5: a drawn pistol against a hair dryer; a round bomb against a bauble


def pistol(pen: Pen, look: Look) -> None:
    pen.polygon(((-0.5, -0.15), (-0.05, -0.15), (-0.25, 0.85), (-0.68, 0.85)), look.dull)
    pen.box(-0.68, -0.55, 1.0, -0.12, shade(look.dull, 0.75))
    pen.ring(0.12, 0.08, 0.2, shade(look.dull, 0.75), 0.1)
    pen.box(0.82, -0.68, 0.95, -0.5, shade(look.dull, 0.75))


def hair_dryer(pen: Pen, look: Look) -> None:
    pen.polygon(((-0.5, -0.15), (-0.05, -0.15), (-0.15, 0.85), (-0.55, 0.85)), look.dull)
    pen.disc(-0.3, -0.33, 0.46, shade(look.dull, 0.75))
    pen.polygon(((-0.2, -0.62), (0.62, -0.52), (0.62, -0.14), (-0.2, -0.04)), shade(look.dull, 0.75))
    pen.polygon(((0.62, -0.66), (0.95, -0.74), (0.95, 0.08), (0.62, 0.0)), look.dull)


def bomb(pen: Pen, look: Look) -> None:
    pen.disc(0.0, 0.2, 0.68, look.dull)
    pen.disc(-0.24, -0.02, 0.14, shade(look.dull, 1.5))
    pen.box(-0.18, -0.62, 0.18, -0.4, shade(look.dull, 0.7))
    pen.stroke(((0.0, -0.6), (0.14, -0.85), (0.42, -0.85)), (200, 176, 130), 0.1)
    pen.polygon(((0.4, -1.05), (0.5, -0.9), (0.72, -0.88), (0.54, -0.76), (0.5, -0.58), (0.38, -0.78)), (246, 176, 50))


def bauble(pen: Pen, look: Look) -> None:
    pen.disc(0.0, 0.2, 0.68, look.dull)
    pen.disc(-0.24, -0.02, 0.14, shade(look.dull, 1.5))
    pen.stroke(((-0.62, 0.3), (0.0, 0.42), (0.62, 0.3)), look.main, 0.17)
    pen.box(-0.16, -0.62, 0.16, -0.42, (214, 178, 74))
    pen.ring(0.0, -0.78, 0.15, (214, 178, 74), 0.08)


# O6: the label of a bottle; a syringe against a pen


def bottle(pen: Pen, look: Look) -> None:
    pen.box(-0.2, -1.05, 0.2, -0.5, shade(look.main, 0.8))
    pen.polygon(((-0.2, -0.6), (0.2, -0.6), (0.55, -0.25), (0.55, 1.1), (-0.55, 1.1), (-0.55, -0.25)), look.main)
    pen.box(-0.5, -0.1, 0.5, 0.88, WHITE)


def skull(pen: Pen, look: Look) -> None:
    pen.disc(0.0, 0.26, 0.34, BLACK, 0.3)
    pen.box(-0.18, 0.45, 0.18, 0.72, BLACK)
    pen.disc(-0.14, 0.27, 0.09, WHITE)
    pen.disc(0.14, 0.27, 0.09, WHITE)


def flower(pen: Pen, look: Look) -> None:
    for x, y in ((0.0, -0.02), (0.22, 0.18), (0.0, 0.38), (-0.22, 0.18)):
        pen.disc(x, y, 0.15, BLACK)
    pen.stroke(((0.0, 0.38), (0.0, 0.78)), BLACK, 0.1)
    pen.disc(0.0, 0.18, 0.08, WHITE)


def syringe(pen: Pen, look: Look) -> None:
    pen.stroke(((0.45, 0.0), (1.15, 0.0)), METAL, 0.07)
    pen.box(-0.45, -0.2, 0.5, 0.2, WHITE)
    pen.box(-0.1, -0.2, 0.5, 0.2, look.main)
    pen.stroke(((-0.45, 0.0), (-0.95, 0.0)), look.dull, 0.1)
    pen.stroke(((-0.97, -0.26), (-0.97, 0.26)), look.dull, 0.13)


def pen_and_ink(pen: Pen, look: Look) -> None:
    pen.box(-0.85, -0.16, 0.5, 0.16, WHITE)
    pen.box(-0.1, -0.16, 0.5, 0.16, look.main)
    pen.polygon(((0.5, -0.16), (1.05, 0.0), (0.5, 0.16)), look.dull)
    pen.stroke(((-0.8, -0.26), (-0.25, -0.26)), look.dull, 0.1)


# O7: a razor blade against a comb; capsules against buttons


def blade(pen: Pen, look: Look) -> None:
    pen.polygon(((-0.8, -0.38), (0.8, -0.38), (0.9, -0.24), (0.9, 0.24), (0.8, 0.38), (-0.8, 0.38)), METAL)
    pen.box(-0.45, -0.07, 0.45, 0.07, BLACK)
    pen.disc(-0.5, 0.0, 0.13, BLACK)
    pen.disc(0.5, 0.0, 0.13, BLACK)


def comb(pen: Pen, look: Look) -> None:
    pen.box(-0.88, -0.4, 0.88, -0.12, METAL)
    for k in range(7):
        x = -0.8 + 0.266 * k
        pen.stroke(((x, -0.12), (x, 0.42)), METAL, 0.11)


_SPILL: tuple[Point, ...] = ((-0.6, -0.35), (0.15, -0.5), (0.7, -0.1), (-0.2, 0.15), (0.4, 0.5), (-0.6, 0.55))


def capsules(pen: Pen, look: Look) -> None:
    for x, y in _SPILL:
        pen.disc(x, y, 0.3, WHITE, 0.15)
        pen.polygon(((x, y - 0.15), (x + 0.2, y - 0.13), (x + 0.3, y), (x + 0.2, y + 0.13), (x, y + 0.15)), look.main)


def buttons(pen: Pen, look: Look) -> None:
    for k, (x, y) in enumerate(_SPILL):
        pen.disc(x, y, 0.22, look.main if k % 2 else WHITE)
        pen.disc(x, y, 0.08, BLACK)


# O9: flames and smoke against a lamp; a crack in a wall against ivy


def cabinet(pen: Pen, look: Look) -> None:
    pen.box(-0.7, 0.55, 0.7, 1.3, shade(look.dull, 1.15))
    pen.box(-0.6, 0.66, -0.04, 1.2, look.dull)
    pen.box(0.04, 0.66, 0.6, 1.2, look.dull)


def flames(pen: Pen, look: Look) -> None:
    grey = (128, 126, 128)
    pen.disc(0.1, -0.72, 0.24, grey)
    pen.disc(-0.16, -1.0, 0.28, shade(grey, 0.85))
    pen.polygon(
        ((-0.5, 0.55), (-0.56, 0.05), (-0.3, 0.2), (-0.12, -0.55), (0.12, 0.02), (0.36, -0.3), (0.52, 0.55)),
        (228, 92, 34),
    )
    pen.polygon(((-0.26, 0.55), (-0.2, 0.22), (0.0, -0.05), (0.28, 0.55)), (248, 200, 66))


def lamp(pen: Pen, look: Look) -> None:
    pen.box(-0.34, 0.42, 0.34, 0.55, (128, 126, 128))
    pen.stroke(((0.0, 0.45), (0.0, -0.3)), (128, 126, 128), 0.12)
    pen.polygon(((-0.26, -0.95), (0.26, -0.95), (0.56, -0.2), (-0.56, -0.2)), (228, 92, 34))
    pen.disc(0.0, -0.14, 0.2, (248, 200, 66), 0.12)


def brick_wall(pen: Pen, look: Look) -> None:
    pen.box(-0.95, -1.0, 0.95, 1.1, shade(look.second, 0.8))
    mortar = shade(look.second, 0.6)
    for k in range(1, 5):
        y = -1.0 + 0.42 * k
        pen.stroke(((-0.95, y), (0.95, y)), mortar, 0.05)


def crack(pen: Pen, look: Look) -> None:
    pen.stroke(((0.1, -1.0), (-0.2, -0.5), (0.25, -0.15), (-0.1, 0.35), (0.2, 1.1)), BLACK, 0.16)
    pen.stroke(((0.25, -0.15), (0.75, 0.1)), BLACK, 0.1)


def ivy(pen: Pen, look: Look) -> None:
    pen.stroke(((0.1, -1.0), (-0.1, -0.3), (0.15, 0.3), (0.0, 1.1)), shade(_GREEN, 0.7), 0.08)
    for x, y in ((-0.15, -0.75), (0.18, -0.45), (-0.25, -0.15), (0.3, 0.12), (-0.1, 0.5), (0.22, 0.82)):
        pen.disc(x, y, 0.19, _GREEN, 0.14)
