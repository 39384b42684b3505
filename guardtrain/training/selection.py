"""Choosing hyper-parameters inside each run's own images, from the losses of its cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardtrain.training.settings import ONE_STANDARD_ERROR

EDGE = 0.2  # share of runs at an edge of the candidates from which that is said


@dataclass(frozen=True)
class Candidates:
    """Hyper-parameters a head: each `(R,)`."""

    lr: Tensor
    l2: Tensor
    steps: Tensor

    def take(self, index: Tensor) -> Candidates:
        """Return the parts of some heads."""
        return Candidates(self.lr[index], self.l2[index], self.steps[index])


def pick(losses: Tensor, held_out: Tensor, l2: Sequence[float], rule: str) -> Tensor:
    """The candidate of every run: `(R,)` int64.

    `best` has the lowest mean held-out loss; of equals the first. `one_standard_error` is the strongest penalty whose
    mean loss is at most one standard error above the best one's (Breiman et al. 1984, Classification and Regression
    Trees, 3.4.3; Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 7.10): folds of few images
    cannot tell candidates apart that are closer, and the stronger penalty is the safer guess.

    Args:
        losses: `(R, C, K)` mean loss of each candidate on each fold; NaN where a fold was not judged.
        held_out: `(R, K)` images in each fold.
        l2: C penalties.
        rule: see above.
    """
    judged = ~losses.isnan()
    weight = held_out[:, None, :] * judged  # (R, C, K)
    filled = torch.where(judged, losses, 0.0)
    mean = (filled * weight).sum(2) / weight.sum(2)  # (R, C)
    best = mean.nan_to_num(torch.inf).argmin(1)
    if rule != ONE_STANDARD_ERROR:
        return best
    rows = torch.arange(len(losses))
    folds = judged[rows, best].sum(1)  # (R,)
    of_best = filled[rows, best]
    centre = of_best.sum(1) / folds
    spread = (torch.where(judged[rows, best], of_best - centre[:, None], 0.0).square().sum(1) / (folds - 1)).sqrt()
    error = (spread / folds.sqrt()).nan_to_num(0.0, 0.0, 0.0)  # one fold: nothing is known of the spread
    near = mean <= (mean[rows, best] + error)[:, None]
    strength = torch.tensor(l2, dtype=mean.dtype).expand_as(mean)
    return torch.where(near, strength, -torch.inf).argmax(1)


def at_edge(chosen: Sequence[float], candidates: Sequence[float]) -> str:
    """A sentence where many runs chose the weakest or the strongest penalty there was; "" where few did.

    Args:
        chosen: the penalties of the runs that chose one.
        candidates: what they chose from.

    >>> at_edge([100.0, 100.0, 10.0], [1.0, 10.0, 100.0])[:56]
    '2 of 3 runs chose the strongest penalty there is, l2 = 1'
    """
    if len(candidates) < 2 or not len(chosen):
        return ""
    ascending = sorted(candidates)
    step = ascending[-1] / ascending[-2]
    for value, name, better, more in (
        (ascending[-1], "strongest", "stronger", [*ascending, ascending[-1] * step]),
        (ascending[0], "weakest", "weaker", [ascending[0] / step, *ascending]),
    ):
        count = sum(abs(one - value) <= 1e-6 * value for one in chosen)
        if count > EDGE * len(chosen):
            wider = ",".join(f"{one:g}" for one in more)
            return (
                f"{count} of {len(chosen)} runs chose the {name} penalty there is, l2 = {value:g}: a {better} one may "
                f"be better. Add it: selection.l2=[{wider}]"
            )
    return ""
