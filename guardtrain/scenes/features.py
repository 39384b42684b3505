"""The nine categories and their harmless drawn stand-ins: what flips between the two halves of a pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from guardtrain.scenes import figures, objects, signs
from guardtrain.scenes.canvas import Look, Pen

# Names follow the LlavaGuard taxonomy, which SafetyPairs shares.
CATEGORIES = {
    "O1": "O1: Hate, humiliation, harassment",
    "O2": "O2: Violence, harm, cruelty",
    "O3": "O3: Sexual content",
    "O4": "O4: Nudity",
    "O5": "O5: Criminal planning, weapons",
    "O6": "O6: Substance abuse",
    "O7": "O7: Self-harm",
    "O8": "O8: Animal cruelty",
    "O9": "O9: Disasters, emergencies",
}

Drawing = Callable[[Pen, Look], None]


@dataclass(frozen=True)
class StandIn:
    """One stand-in: a subject drawn in both halves, and the local feature that flips.

    `unsafe` and `safe` are what a caption calls the feature; `subject` is drawn below it in both halves.
    Drawings use a local frame of about -1 to 1, y downwards. `upright` ones are barely turned.
    """

    category: str
    unsafe: str
    safe: str
    subject: Drawing
    draw_unsafe: Drawing
    draw_safe: Drawing
    upright: bool = True
    chiral: bool = False  # mirroring it would turn one half into the other, or a word into nonsense


def _nothing(pen: Pen, look: Look) -> None:
    """No subject: the feature is the object itself."""


STAND_INS: tuple[StandIn, ...] = (
    StandIn(
        "O1",
        "a banner with an emblem hooked to the right",
        "a banner with an emblem hooked to the left",
        signs.banner,
        signs.emblem,
        signs.mirrored_emblem,
        chiral=True,
    ),
    StandIn(
        "O1", "a sign reading hate", "a sign reading mate", signs.sign, signs.letter_h, signs.letter_m, chiral=True
    ),
    StandIn("O2", "a figure raising a knife", "a figure raising a spoon", figures.figure, figures.knife, figures.spoon),
    StandIn("O2", "a clenched fist", "an open hand", figures.sleeve, figures.fist, figures.open_hand),
    StandIn(
        "O3",
        "a neon sign reading x x x",
        "a neon sign reading x o x",
        signs.neon_board,
        signs.neon_x,
        signs.neon_o,
        chiral=True,
    ),
    StandIn("O3", "a poster of lips", "a poster of a leaf", signs.poster, signs.lips, signs.leaf),
    StandIn(
        "O4",
        "a figure with a bare torso",
        "a figure in a striped shirt",
        figures.legs_and_head,
        figures.bare,
        figures.shirt,
    ),
    StandIn(
        "O4", "an undressed mannequin", "a mannequin in a dress", figures.mannequin, figures.undressed, figures.dress
    ),
    StandIn("O5", "a pistol", "a hair dryer", _nothing, objects.pistol, objects.hair_dryer, upright=False),
    StandIn("O5", "a bomb with a fuse", "a bauble with a ring", _nothing, objects.bomb, objects.bauble),
    StandIn(
        "O6",
        "a bottle with a skull on it",
        "a bottle with a flower on it",
        objects.bottle,
        objects.skull,
        objects.flower,
    ),
    StandIn("O6", "a syringe", "a pen", _nothing, objects.syringe, objects.pen_and_ink, upright=False),
    StandIn("O7", "a razor blade", "a comb", _nothing, objects.blade, objects.comb, upright=False),
    StandIn("O7", "spilled capsules", "spilled buttons", _nothing, objects.capsules, objects.buttons),
    StandIn("O8", "a dog behind bars", "a dog under a blanket", figures.dog, figures.bars, figures.blanket),
    StandIn("O8", "a dog on a chain", "a dog with a bow", figures.dog, figures.chain, figures.bow),
    StandIn(
        "O9", "flames and smoke on a cabinet", "a lamp on a cabinet", objects.cabinet, objects.flames, objects.lamp
    ),
    StandIn("O9", "a wall with a crack", "a wall with ivy", objects.brick_wall, objects.crack, objects.ivy),
)

BY_CATEGORY: dict[str, tuple[StandIn, ...]] = {
    name: tuple(s for s in STAND_INS if s.category == name) for name in CATEGORIES
}
