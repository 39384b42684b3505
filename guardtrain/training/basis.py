"""The principal axes of the images trained on: in these coordinates a diagonal describes the curvature of the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MOST_ROWS = 8192  # enough to see the axes


@dataclass(frozen=True)
class Basis:
    """An orthogonal change of coordinates, centred and divided by one scale.

    CLIP embeddings vary a thousand times more along some directions than along others, which is what makes L-BFGS slow
    on them. Along principal axes the Hessian of the logistic loss is near a diagonal, and its inverse, together with
    the penalty, is a start that L-BFGS needs few corrections from. An L2 penalty is the same in all orthogonal bases.

    Args:
        mean: `(D,)` float32.
        scale: root mean square of the centred rows' coordinates.
        axes: `(D, D)` float32, orthonormal columns.
        variances: `(D,)` float32 of the scaled rows along the axes; their mean is 1.
    """

    mean: Tensor
    scale: float
    axes: Tensor
    variances: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Basis:
        """The basis of `(n, D)` float32 rows; of evenly spaced ones where there are very many."""
        sample = rows[:: -(-len(rows) // _MOST_ROWS)]
        mean = sample.mean(0)
        centred = sample - mean
        scale = max(float(centred.square().mean().sqrt()), 1e-6)
        covariance = centred.T @ centred / (len(sample) * scale**2)
        variances, axes = torch.linalg.eigh(covariance)
        return cls(mean, scale, axes, variances.clamp_min(0))

    def project(self, rows: Tensor) -> Tensor:
        """`(n, D)` float32 coordinates of rows `(n, D)`."""
        return ((rows - self.mean) / self.scale) @ self.axes

    def on_embeddings(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Weights `(R, D)` and biases `(R,)` float64 on embeddings, of heads `(R, D + 1)` here, bias last."""
        points = points.double()
        weight = points[:, :-1] @ self.axes.double().T / self.scale
        return weight, points[:, -1] - weight @ self.mean.double()
