"""The faint trace that an image editor leaves: what makes "edited" readable in counterfactual data."""

from __future__ import annotations

import numpy as np

_REACH = 3  # pixels at 64 by which the edited region exceeds the feature


def edit(image: np.ndarray, changed: np.ndarray, strength: float) -> np.ndarray:
    """`image` as an editor hands it back.

    The edited region loses its fine detail, as after inpainting, and takes on a checkerboard of a few grey levels, as
    after up-sampling; everywhere else detail is damped a little, as after one more encoding. In the real SafetyPairs
    every safe image went through an editor and no unsafe one did, so this trace predicts the label there.

    Args:
        image: (H, W, 3) uint8
        changed: (H, W) bool, where the feature flips; the edited region is its bounding box and a margin
        strength: 0 leaves the image as it is, 1 is plainly visible

    Returns:
        (H, W, 3) uint8, a new array
    """
    if strength == 0:
        return image.copy()
    height, width = changed.shape
    margin = round(_REACH * height / 64)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    damping = np.full((height, width, 1), 0.25 * strength, np.float32)
    grid = np.zeros((height, width, 1), np.float32)
    if len(rows):
        top, bottom = max(0, rows[0] - margin), min(height, rows[-1] + 1 + margin)
        left, right = max(0, columns[0] - margin), min(width, columns[-1] + 1 + margin)
        damping[top:bottom, left:right] = 0.8 * strength
        y, x = np.ogrid[top:bottom, left:right]
        grid[top:bottom, left:right, 0] = np.where((y + x) % 2, 6 * strength, -6 * strength)
    original = image.astype(np.float32)
    result = original + damping * (_smoothed(original) - original) + grid
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def _smoothed(image: np.ndarray) -> np.ndarray:
    """`image` under the kernel (1, 2, 1)/4 in both directions, edges repeated."""
    padded = np.pad(image, ((1, 1), (0, 0), (0, 0)), mode="edge")
    image = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    padded = np.pad(image, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return np.asarray((padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4)
