"""The settings of one run's mixture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MixtureSettings:
    """The mixture of one run; see the README's glossary.

    Args:
        budget: n, labelled training images.
        ratio: ρ, the share of pair images.
        arm: `replace` or `add`.
        control: `paired`, `shuffled`, `unpaired`, `balanced` or `real`.
        seed: draws the images and starts the head.
        rounding: `exact` or `nearest`.
    """

    budget: int = 512
    ratio: float = 0.5
    arm: str = "replace"
    control: str = "paired"
    seed: int = 0
    rounding: str = "exact"
