"""What a user can set about planning a curve; light, so that the config schema can import it."""

from __future__ import annotations

from dataclasses import dataclass

from guardtrain.errors import ConfigError


@dataclass
class PlanSettings:
    """`guardtrain plan`: a pilot curve → the seeds and budgets that show a difference.

    Args:
        results: the pilot: a curve's folder with its scores; null for the embedded one, of the scenes.
        difference: what is to be shown, in the metric's own unit: .02 of AUROC.
        power: in how many of such curves it is to be shown.
        test: the pilot's test set; null for the first with pairs.
        metric: what is measured, of those that can be resampled, such as `auroc` or `pair_both_right`.
    """

    results: str | None = None
    difference: float = 0.02
    power: float = 0.8
    test: str | None = None
    metric: str = "auroc"

    def __post_init__(self) -> None:
        if self.difference <= 0:
            raise ConfigError(f"difference is {self.difference:g}; it must be above 0, such as difference=0.02.")
        if not 0.05 < self.power < 1:
            raise ConfigError(f"power is {self.power:g}; it must be above .05 and below 1, such as power=0.8.")
        if self.results is None and (self.test is not None or self.metric != "auroc"):
            raise ConfigError(
                "The embedded pilot has AUROC on 'counterfactual' alone; name a curve's folder: results=…"
            )
