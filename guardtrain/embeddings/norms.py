"""What embeddings cannot be of an encoder: of another length than its own are, or no numbers."""

from __future__ import annotations

import numpy as np

from guardtrain.encoders.spec import EncoderSpec

NORM_TOLERANCE = 1e-2  # of unit norm: embeddings that were stored as float16 stray by 1e-3


def wrong_rows(rows: np.ndarray, spec: EncoderSpec, first: int = 0, of: int | None = None) -> str | None:
    """Say what is wrong with embeddings `(N, D)` that an encoder is said to have made; None where nothing is.

    Args:
        rows: of any floating type.
        spec: the encoder.
        first: the number of the first row, where these are a part.
        of: how many there are in all; default: N.
    """
    if not len(rows) or _surely_right(rows, bool(spec.normalize)):
        return None
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    of = len(rows) if of is None else of
    if not np.isfinite(norms).all():
        wrong = np.flatnonzero(~np.isfinite(norms))
        return (
            f"{len(wrong)} of {of:,} embeddings hold NaN or infinity, the first is row {first + wrong[0]}. Embed "
            "these images again; a broken image or an overflow in float16 makes such numbers."
        )
    strays = np.abs(norms - 1) > NORM_TOLERANCE
    if spec.normalize and strays.any():
        row = int(strays.argmax())
        return (
            f"The encoder {spec.label} gives embeddings of unit norm; {int(strays.sum())} of {of:,} are not, the first "
            f"is row {first + row} with norm {norms[row]:.4g}. Divide each by its norm, if they are this encoder's."
        )
    return None


def _surely_right(rows: np.ndarray, unit: bool) -> bool:
    """Whether a quick look is enough; False where it is not, and a close one decides."""
    if rows.dtype.itemsize < 4:
        return False
    squares = np.einsum("nd,nd->n", rows, rows)
    if unit:
        return bool(np.abs(squares - 1).max() < NORM_TOLERANCE)  # half of what norms may stray; not for NaN
    return bool(squares.max() < np.inf)
