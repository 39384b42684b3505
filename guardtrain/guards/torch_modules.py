"""A guard as torch modules that can be exported: calibrators as tensor programs, head, and encoder with head."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guardtrain.errors import GuardError
from guardtrain.guards.calibration import Beta, Calibrator, Identity, Isotonic, Platt, Temperature
from guardtrain.heads.neighbours import NeighboursBank

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.guards.category_head import CategoryHead
    from guardtrain.heads.bank import HeadBank


class PlattModule(nn.Module):
    """`sigmoid(slope · logit + intercept)`; also the temperature, and no calibration."""

    def __init__(self, slope: float, intercept: float) -> None:
        super().__init__()
        self.slope, self.intercept = slope, intercept

    def forward(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * logits + self.intercept)


class BetaModule(nn.Module):
    """`sigmoid(a · log p - b · log(1 - p) + c)` of `p = sigmoid(logit)`."""

    def __init__(self, a: float, b: float, c: float) -> None:
        super().__init__()
        self.a, self.b, self.c = a, b, c

    def forward(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(self.b * F.softplus(logits) - self.a * F.softplus(-logits) + self.c)


class InterpolationModule(nn.Module):
    """numpy's `interp` of ascending corners, flat beyond them; in float32, where logits are corners themselves."""

    x: Tensor
    y: Tensor

    def __init__(self, x: tuple[float, ...], y: tuple[float, ...]) -> None:
        super().__init__()
        if len(x) == 1:  # a constant: two corners far apart say the same
            x, y = (x[0], x[0] + 1), (y[0], y[0])
        self.register_buffer("x", torch.tensor(x, dtype=torch.float32))
        self.register_buffer("y", torch.tensor(y, dtype=torch.float32))

    def forward(self, logits: Tensor) -> Tensor:
        right = (logits[:, None] >= self.x).sum(1).clamp(1, self.x.shape[0] - 1)
        x0, x1, y0, y1 = self.x[right - 1], self.x[right], self.y[right - 1], self.y[right]
        width = x1 - x0
        share = torch.where(width > 0, (logits - x0) / width.clamp_min(1e-30), torch.ones_like(logits))
        return y0 + share.clamp(0, 1) * (y1 - y0)


def calibrator_module(calibrator: Calibrator) -> nn.Module:
    """The calibrator as a module: logits `(N,)` float32 to probabilities `(N,)`.

    Raises:
        GuardError: a kind that has no tensor program.
    """
    match calibrator:
        case Identity():
            return PlattModule(1.0, 0.0)
        case Temperature(temperature=temperature):
            return PlattModule(1 / temperature, 0.0)
        case Platt(slope=slope, intercept=intercept):
            return PlattModule(slope, intercept)
        case Beta(a=a, b=b, c=c):
            return BetaModule(a, b, c)
        case Isotonic(logits=x, values=y):
            return InterpolationModule(x, y)
    raise GuardError(f"The calibrator '{calibrator.kind}' cannot be exported; choose another (calibration.kinds).")


class CategoryModule(nn.Module):
    """Embeddings `(N, D)` to `(N, C)`, for each category its logit and its probability where the image is unsafe."""

    weight: Tensor
    bias: Tensor

    def __init__(self, head: CategoryHead) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(head.weight.copy()))
        self.register_buffer("bias", torch.from_numpy(head.bias.copy()))

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        logits = F.linear(embeddings, self.weight, self.bias)
        return logits, logits.softmax(dim=1)


class HeadModule(nn.Module):
    """Embeddings `(N, D)` to the logit `(N,)` and the calibrated probability `(N,)`."""

    def __init__(self, bank: HeadBank, calibrator: Calibrator) -> None:
        super().__init__()
        self.bank = _fixed(bank)
        self.calibrator = calibrator_module(calibrator)

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        logit = self.bank(embeddings)[0]
        return logit, self.calibrator(logit)


class WholeModule(nn.Module):
    """Preprocessed pixels `(N, 3, H, W)` to the logit `(N,)` and the calibrated probability `(N,)`.

    With a category head also to the probabilities `(N, C)` of its categories where the image is unsafe.
    """

    def __init__(self, encoder: Encoder, head: HeadModule, categories: CategoryModule | None = None) -> None:
        super().__init__()
        if encoder.arithmetic != "float32":
            raise GuardError(
                f"An encoder in {encoder.arithmetic} cannot be exported as a whole; export the head alone "
                "(whole=false), or train on embeddings of encoder.dtype=float32."
            )
        self.visual = getattr(encoder.model, "visual", encoder.model)  # of a CLIP the image tower alone
        self.head, self.categories = head, categories
        self.normalize = bool(encoder.spec.normalize)
        self._features = encoder._image_features

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        features = self._features(pixels).float()
        embeddings = F.normalize(features, dim=-1) if self.normalize else features
        logit, probability = self.head(embeddings)
        if self.categories is None:
            return logit, probability
        return logit, probability, self.categories(embeddings)[1]


def _fixed(bank: HeadBank) -> HeadBank:
    """A copy whose shapes do not depend on what its tensors hold, as an exported program needs it."""
    bank = copy.deepcopy(bank).eval().requires_grad_(False)
    if isinstance(bank, NeighboursBank):
        count = bank.neighbours.tolist()
        del bank.neighbours
        bank.neighbours = count  # numbers, not a tensor
    return bank
