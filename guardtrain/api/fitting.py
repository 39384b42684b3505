"""Budgets that the pools cannot supply: refused where their user named them, left out where a preset did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from guardtrain.curves.grid import GridPoint, GridSettings, grid_points, supplied
from guardtrain.errors import MixtureError
from guardtrain.grammar import setting_text
from guardtrain.mixtures import OF_REAL, Supply
from guardtrain.mixtures.settings import MixtureSettings

if TYPE_CHECKING:
    from guardtrain.training.recipe import TrainingRecipe


def require_mixture(mixture: MixtureSettings, supply: Supply) -> None:
    """Refuse a mixture that there are too few images for.

    Raises:
        MixtureError: with the settings of the largest one that fits.
    """
    if lacks := mixture_lacks(mixture, supply):
        raise MixtureError(lacks)


def mixture_lacks(mixture: MixtureSettings, supply: Supply) -> str:
    """Why the pools cannot supply a mixture, and the settings of the largest that they can; empty where they can."""
    lacks = supply.lacks(mixture.budget, mixture.ratio, mixture.arm, mixture.control, mixture.rounding)
    if not lacks:
        return ""
    ratio = 0.0 if supply.pairs is None and mixture.control not in OF_REAL else mixture.ratio
    largest = supply.largest([(ratio, mixture.arm, mixture.control)], mixture.rounding)
    if largest is None:
        return f"{lacks} No budget fits this mixture."
    words = [*(["mixture.ratio=0"] if ratio != mixture.ratio else []), f"mixture.budget={min(largest, mixture.budget)}"]
    return f"{lacks} The most that fits: {' '.join(words)}"


def grid_check(grid: GridSettings, overrides: Sequence[str], say: Callable[[str], None]) -> Callable[[Supply], None]:
    """Return a check that fits a curve's grid to the images when their number is known.

    What does not fit of a preset is left out, by the curve itself, and said here. What was given on the command line
    must fit: budgets, and ratios where there are no pairs at all.

    Args:
        grid: which.
        overrides: the command line's.
        say: tells the user.
    """

    def check(supply: Supply) -> None:
        """Raises MixtureError."""
        points, lacking = supplied(grid, supply)
        if given_of_grid("controls", overrides) and "balanced" in grid.controls:
            mixed = [(ratio, arm) for ratio in grid.ratios for arm in grid.arms if ratio]
            if without := sorted({ratio for ratio, arm in mixed if not supply.rebalances(ratio, arm)}):
                share = f"{supply.unsafe / supply.real:.0%} of the real images are unsafe"
                say(
                    f"no control balanced at ratios {setting_text(without)}: {share}, "
                    "and pairs change that share by no more than .02"
                )
        if not lacking:
            return
        without_pairs = [one for one in lacking if supply.pairs is None and one.drawn[2] not in OF_REAL and one.ratio]
        others = [point for point in lacking if point not in without_pairs]
        refused = without_pairs if given_of_grid("ratios", overrides) else []
        refused = refused + (others if given_of_grid("budgets", overrides) else [])
        hint = _hint(grid, supply)
        if refused or not points:
            raise MixtureError(f"{lacking[refused[0] if refused else next(iter(lacking))]} {hint}")
        if without_pairs:
            say("there are no pairs: the curve is of real images alone")
        if others:
            of_pairs = "" if supply.pairs is None else f" and {supply.pairs:,} pairs"
            listed = _listed(others, points, grid.arms)
            say(f"left out, for {supply.real:,} real images{of_pairs} are too few: {listed}. {hint}")

    return check


def grid_for(recipe: TrainingRecipe, grid: GridSettings, asked: bool) -> GridSettings:
    """The grid of one head: without the control `shuffled` where training looks at no partner, unless it was asked for.

    Its runs would be those of the pairs once more.
    """
    others = [control for control in grid.controls if control != "shuffled"]
    if recipe.reads_pairs or not others or asked:
        return grid
    return replace(grid, controls=others)


def _listed(lacking: Sequence[GridPoint], points: Sequence[GridPoint], arms: Sequence[str]) -> str:
    """Budgets that are left out, and what is left out of others."""

    def named(those: Iterable[GridPoint]) -> str:
        texts = dict.fromkeys(point.images for point in those)
        return ", ".join(text.removesuffix(f" ({arms[0]})") if len(arms) == 1 else text for text in texts)

    whole, parts = [], []
    for budget in dict.fromkeys(point.budget for point in lacking):
        out = [point for point in lacking if point.budget == budget]
        kept = list(dict.fromkeys(replace(point, seed=0) for point in points if point.budget == budget))
        if not kept:
            whole.append(str(budget))
        else:
            parts.append(f"at {budget} {f'all but {named(kept)}' if len(kept) < len(out) else named(out)}")
    return "; ".join([*parts, *([f"budget{'s' * (len(whole) > 1)} {', '.join(whole)}"] if whole else [])])


def _hint(grid: GridSettings, supply: Supply) -> str:
    """The setting of the largest budgets at which all mixtures of the grid fit that can fit at all."""
    points = [point for point in grid_points(grid) if point.seed == grid.first_seed]
    if supply.pairs is None:
        points = [point for point in points if not point.ratio or point.control in OF_REAL]
    mixtures = dict.fromkeys(point.drawn for point in points)
    largest = supply.largest(mixtures, grid.rounding)
    if largest is None:
        return "No budget fits all of the grid."
    fitting = [b for b in grid.budgets if not any(supply.lacks(b, *drawn, grid.rounding) for drawn in mixtures)]
    budgets = sorted({*fitting, min(largest, max(grid.budgets))})
    ratios = [ratio for ratio in grid.ratios if any(drawn[0] == ratio for drawn in mixtures)]
    words = [f"grid.ratios={setting_text(ratios)}"] if len(ratios) < len(grid.ratios) else []
    return f"The most at which all of it fits: {' '.join([*words, f'grid.budgets={setting_text(budgets)}'])}"


def given_of_grid(name: str, overrides: Sequence[str]) -> bool:
    """Whether overrides set this of the grid."""
    texts = [text.lstrip("+").partition("=") for text in overrides]
    return any(key == f"grid.{name}" or (key == "grid" and f"{name}:" in value) for key, _, value in texts)
