"""Captions of scenes for the demo encoder: what is to be seen and nothing of what a guard should think of it."""

from __future__ import annotations

from guardtrain.scenes.canvas import Dice
from guardtrain.scenes.render import Scene

_STYLES = {"flat": "flat", "outlined": "outlined", "pale": "pale", "textured": "grainy"}
_TINTS = {"colour": "in colour", "grey": "in black and white", "sepia": "in sepia", "blue": "in blue tones"}
_KINDS = ("drawing", "picture", "image")


def describe(scene: Scene, label: int, dice: Dice) -> str:
    """A caption of one half of `scene`; parts are left out and ordered at random.

    Args:
        scene: what was drawn.
        label: which half was drawn, 1 unsafe or 0 safe; the caption names the feature, never the label.
        dice: at least 12 uniform numbers.
    """
    what = scene.stand_in.unsafe if label else scene.stand_in.safe
    tail = [f"in the {scene.context.name}" if dice.chance(0.7) else "", _position(scene) if dice.chance(0.3) else ""]
    things = [f"a {t.colour_name} {t.name}" for t in (*scene.before, *scene.behind)[:3]]
    clutter = "with " + " and ".join(things) if things and dice.chance(0.35) else ""
    manner = f"{_STYLES[scene.style]} {dice.choice(_KINDS)}" if dice.chance(0.4) else ""
    light = _light(scene) if dice.chance(0.3) else ""
    tint = _TINTS[scene.tint] if dice.chance(0.4) else ""
    if dice.chance(0.5):
        tail.reverse()
    start = f"{manner} of {what}" if manner and dice.chance(0.5) else what
    end = "" if start != what else manner
    return ", ".join(part for part in (start, *tail, clutter, end, light, tint) if part)


def _position(scene: Scene) -> str:
    side = "left" if scene.x < 0.4 else "right" if scene.x > 0.6 else "centre"
    return f"{'large' if scene.scale > 0.29 else 'small'}, {side}"


def _light(scene: Scene) -> str:
    return f"{scene.light} light" if " " not in scene.light else f"lit {scene.light}"
