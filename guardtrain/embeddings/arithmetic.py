"""Which arithmetic a store is made in: float32, or bfloat16 where it is quicker and gives the same embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.embeddings.forwarding import Forwarder
from guardtrain.embeddings.reading import Reader

if TYPE_CHECKING:
    import torch

    from guardtrain.encoders.encoder import Encoder

AUTO = "auto"
# What two embeddings of an image may differ by and still be the same encoder's: 1 - cosine.
PARITY = 1e-4
# What a sample may differ by, so that images unlike those in it stay within `PARITY`.
_SAMPLE_PARITY = PARITY / 3
_SAMPLE = 8  # images; the errors of rounding vary little from one to the next
_FEWEST_ROWS = 512  # below that, comparing takes longer than bfloat16 saves
_SMALLEST_MODEL = 20_000_000  # parameters; smaller models spend their time elsewhere than in multiplying


def choose_arithmetic(model: Encoder, reader: Reader, rows: int, load: Callable[[], Encoder]) -> Encoder:
    """The model in the quickest arithmetic that gives the embeddings of float32, on this device and for these images.

    bfloat16 takes half the time or less where the device computes in it. It is used where, for a sample spread over
    the source, every embedding's cosine with float32's is at least 1 - 3e-5, so that no image comes near the 1 - 1e-4
    up to which the encoder counts as the same. The choice depends on the device's kind and the images alone, and the
    store's plan keeps it.

    Args:
        model: in float32; not to be used any more afterwards.
        reader: of the source's records.
        rows: how many of them there are.
        load: makes the model anew.
    """
    if rows < _FEWEST_ROWS or _parameters(model) < _SMALLEST_MODEL or not computes_bfloat16(model.device):
        return model
    forwarder = Forwarder(reader, model)
    sample = np.unique(np.linspace(0, rows - 1, _SAMPLE).astype(int)).tolist()
    contents = []
    for row in sample:
        try:
            contents.append(reader.read(row))
        except Exception as error:  # set aside when its turn comes
            contents.append(error)
    inputs = reader.inputs(sample, contents)
    if not inputs.rows:
        return model
    exact = forwarder.features(inputs)
    model.use_bfloat16()
    if (1 - cosines(exact, forwarder.features(inputs))).max() <= _SAMPLE_PARITY:
        return model
    return load()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) cosine of each row of `a` with the same row of `b`."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    product = np.einsum("nd,nd->n", a, b)
    return np.asarray(product / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 (others imitate them, at a fraction of float32's speed)."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # No public question for it yet; a torch without these answers no.
    questions = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(bool(question()) for question in questions if question is not None)


def _parameters(model: Encoder) -> int:
    return sum(p.numel() for p in getattr(model, "model", None).parameters()) if hasattr(model, "model") else 0  # type: ignore[union-attr]
