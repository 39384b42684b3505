"""Stand-ins that are signs: emblems, letters, neon and posters (O1, O3)."""

from __future__ import annotations

from guardtrain.scenes.canvas import BLACK, WHITE, Colour, Look, Pen, Point, shade


def _mirrored(points: list[Point]) -> list[Point]:
    return [(-x, y) for x, y in points]


# O1: an invented emblem against its mirror image; one letter of a sign


def banner(pen: Pen, look: Look) -> None:
    pen.stroke(((-0.95, -1.0), (-0.95, 1.6)), shade(look.dull, 0.7), 0.12)
    pen.polygon(((-0.9, -0.95), (0.95, -0.85), (0.95, 0.8), (-0.9, 0.9)), look.main)


_STEM: list[Point] = [(0.5, -0.6), (-0.12, -0.6), (-0.12, 0.6)]
_HOOK: list[Point] = [(-0.12, 0.1), (0.3, 0.1), (0.3, 0.55)]


def emblem(pen: Pen, look: Look) -> None:
    pen.stroke(_STEM, WHITE, 0.2)
    pen.stroke(_HOOK, WHITE, 0.2)
    pen.disc(-0.48, -0.2, 0.16, WHITE)


def mirrored_emblem(pen: Pen, look: Look) -> None:
    pen.stroke(_mirrored(_STEM), WHITE, 0.2)
    pen.stroke(_mirrored(_HOOK), WHITE, 0.2)
    pen.disc(0.48, -0.2, 0.16, WHITE)


_LETTERS: dict[str, tuple[list[Point], ...]] = {
    "A": ([(-1, 1), (0, -1), (1, 1)], [(-0.55, 0.3), (0.55, 0.3)]),
    "E": ([(0.9, -1), (-0.8, -1), (-0.8, 1), (0.9, 1)], [(-0.8, 0), (0.6, 0)]),
    "H": ([(-0.9, -1), (-0.9, 1)], [(0.9, -1), (0.9, 1)], [(-0.9, 0), (0.9, 0)]),
    "M": ([(-1, 1), (-1, -1), (0, 0.5), (1, -1), (1, 1)],),
    "O": ([(-0.5, -1), (0.5, -1), (1, -0.4), (1, 0.4), (0.5, 1), (-0.5, 1), (-1, 0.4), (-1, -0.4), (-0.5, -1)],),
    "T": ([(-1, -1), (1, -1)], [(0, -1), (0, 1)]),
    "X": ([(-0.9, -1), (0.9, 1)], [(0.9, -1), (-0.9, 1)]),
}


def _write(pen: Pen, word: str, colour: Colour, start: float, step: float, size: tuple[float, float]) -> None:
    """Write `word` in strokes, letter centres from `start` in steps of `step`, half-extents `size`."""
    for k, letter in enumerate(word):
        if letter != " ":
            for line in _LETTERS[letter]:
                pen.stroke([(start + k * step + size[0] * x, size[1] * y) for x, y in line], colour, 0.13)


def sign(pen: Pen, look: Look) -> None:
    pen.box(-0.08, 0.5, 0.08, 1.6, shade(look.dull, 0.8))
    pen.box(-1.25, -0.62, 1.25, 0.62, WHITE)
    _write(pen, " ATE", BLACK, -0.9, 0.6, (0.2, 0.34))


def letter_h(pen: Pen, look: Look) -> None:
    _write(pen, "H", BLACK, -0.9, 0.6, (0.2, 0.34))


def letter_m(pen: Pen, look: Look) -> None:
    _write(pen, "M", BLACK, -0.9, 0.6, (0.22, 0.34))


# O3: a neon sign


def neon_board(pen: Pen, look: Look) -> None:
    pen.box(-1.15, -0.68, 1.15, 0.68, (44, 34, 58))
    pen.box(-1.05, -0.58, 1.05, 0.58, (62, 46, 78))
    _write(pen, "X X", shade(look.main, 1.3), -0.66, 0.66, (0.22, 0.34))


def neon_x(pen: Pen, look: Look) -> None:
    _write(pen, "X", shade(look.main, 1.3), 0.0, 0.66, (0.22, 0.34))


def neon_o(pen: Pen, look: Look) -> None:
    _write(pen, "O", shade(look.main, 1.3), 0.0, 0.66, (0.22, 0.34))


def poster(pen: Pen, look: Look) -> None:
    pen.box(-0.9, -0.95, 0.9, 0.95, WHITE)
    pen.box(-0.78, -0.83, 0.78, 0.83, shade(look.second, 1.45))


def lips(pen: Pen, look: Look) -> None:
    pen.polygon(((-0.65, 0.0), (-0.22, -0.34), (0.0, -0.2), (0.22, -0.34), (0.65, 0.0), (0.0, 0.42)), look.main)
    pen.stroke(((-0.5, 0.0), (0.0, 0.07), (0.5, 0.0)), shade(look.main, 0.45), 0.09)


def leaf(pen: Pen, look: Look) -> None:
    pen.polygon(((-0.65, 0.28), (-0.35, -0.25), (0.2, -0.42), (0.65, -0.36), (0.45, 0.12), (0.0, 0.4)), look.main)
    pen.stroke(((-0.65, 0.28), (0.0, 0.02), (0.5, -0.28)), shade(look.main, 0.45), 0.09)
