"""The grid of a curve: which mixtures, budgets and seeds are run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from guardtrain.curves.results import NO_CONTROL
from guardtrain.errors import ConfigError
from guardtrain.mixtures import ARMS, CONTROLS, ROUNDINGS, Mixer, Mixture, Supply, counts


@dataclass
class GridSettings:
    """Every combination of these is a run; real-only (ratio 0) is run once a budget and seed.

    Args:
        budgets: numbers n of labelled training images.
        ratios: shares ρ of pair images.
        arms: `replace` takes pair images instead of real ones, `add` takes them on top.
        controls: what the pair images are: `paired`; `shuffled`, the same images with partners at random; `unpaired`,
            no two from one pair; `balanced`, real images with the mixture's share of unsafe ones, run where pairs
            change that share by more than .02; `real`, as many real images.
        seeds: how many seeds, counted from `first_seed`; a seed draws the images and starts the head.
        first_seed: the first of them.
        rounding: `exact` refuses a share that is not a whole number of pairs, `nearest` rounds it.
    """

    budgets: list[int] = field(default_factory=lambda: [16, 32, 64, 128, 256, 512, 1024, 2048])
    ratios: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 1.0])
    arms: list[str] = field(default_factory=lambda: ["replace"])
    controls: list[str] = field(default_factory=lambda: ["paired", "shuffled", "unpaired", "balanced"])
    seeds: int = 5
    first_seed: int = 0
    rounding: str = "exact"

    def __post_init__(self) -> None:
        for name in ("budgets", "ratios", "arms", "controls"):
            values = getattr(self, name)
            if not values:
                raise ConfigError(f"grid.{name} is empty; give at least one value, such as grid.{name}=[...].")
            if len(set(values)) < len(values):
                raise ConfigError(f"grid.{name} lists a value twice: {values}.")
        for name, allowed in (("arms", ARMS), ("controls", CONTROLS)):
            for value in getattr(self, name):
                if value not in allowed:
                    raise ConfigError(f"grid.{name} holds '{value}'; allowed: {', '.join(allowed)}.")
        if self.rounding not in ROUNDINGS:
            raise ConfigError(f"grid.rounding is '{self.rounding}'; allowed: {', '.join(ROUNDINGS)}.")
        if self.seeds < 1:
            raise ConfigError(f"grid.seeds must be >= 1; got {self.seeds}.")
        for budget in self.budgets:
            if budget < 2:
                raise ConfigError(f"grid.budgets holds {budget}; a run needs at least 2 images, one of each label.")
        for ratio in self.ratios:
            if not 0 <= ratio <= 1:
                raise ConfigError(f"grid.ratios holds {ratio}; a ratio is a share in [0, 1].")


@dataclass(frozen=True, order=True)
class GridPoint:
    """One run of the grid; at ratio 0 arm and control mean nothing and are `replace` and `none`."""

    seed: int
    budget: int
    ratio: float
    arm: str
    control: str

    @property
    def images(self) -> str:
        """Say what it draws: "real only", "ratio 0.5 paired (replace)"."""
        return "real only" if self.control == NO_CONTROL else f"ratio {self.ratio:g} {self.control} ({self.arm})"

    @property
    def drawn(self) -> tuple[float, str, str]:
        """Ratio, arm and control as mixtures know them: at ratio 0 any control gives the same."""
        return self.ratio, self.arm, CONTROLS[0] if self.control == NO_CONTROL else self.control

    def mixture(self, mixer: Mixer, rounding: str = "exact") -> Mixture:
        """The images of this run. Raises MixtureError where the pools cannot supply them."""
        ratio, arm, control = self.drawn
        return mixer.mix(budget=self.budget, ratio=ratio, arm=arm, control=control, seed=self.seed, rounding=rounding)


def grid_points(settings: GridSettings) -> Iterator[GridPoint]:
    """The runs of `settings`, seed by seed, real-only once for each budget and seed."""
    for seed in range(settings.first_seed, settings.first_seed + settings.seeds):
        for budget in settings.budgets:
            for ratio in settings.ratios:
                if ratio == 0:
                    yield GridPoint(seed, budget, 0.0, ARMS[0], NO_CONTROL)
                    continue
                for arm in settings.arms:
                    for control in settings.controls:
                        if (arm, control) == ("replace", "real"):
                            continue  # n(1-ρ) real + nρ more real is the real-only run
                        yield GridPoint(seed, budget, ratio, arm, control)


def supplied(settings: GridSettings, supply: Supply) -> tuple[list[GridPoint], dict[GridPoint, str]]:
    """The runs of `settings` that there are images for; and those of the first seed that there are none for, with why.

    Raises:
        MixtureError: shares that are not whole numbers of pairs.
    """
    every = [p for p in grid_points(settings) if p.control != "balanced" or supply.rebalances(p.ratio, p.arm)]
    first = [point for point in every if point.seed == settings.first_seed]
    lacks = {point: supply.lacks(point.budget, *point.drawn, settings.rounding) for point in first}
    lacking = {point: why for point, why in lacks.items() if why}
    return [point for point in every if replace(point, seed=settings.first_seed) not in lacking], lacking


def check_counts(settings: GridSettings) -> None:
    """Refuse a grid whose shares are not whole numbers of pairs, before anything is embedded or trained.

    Raises:
        MixtureError: with the nearest ratios and budgets that work.
    """
    for point in grid_points(settings):
        if point.control != NO_CONTROL:
            counts(point.budget, point.ratio, point.arm, settings.rounding, point.control)
