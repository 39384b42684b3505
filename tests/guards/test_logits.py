from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from guardtrain.errors import GuardError
from guardtrain.guards.logits import checked_embeddings, head_function
from guardtrain.heads.mlp import MLPHead
from tests.guards.toys import DIM, SPEC, toy_bank, toy_images

RAW = replace(SPEC, normalize=False)


def test_the_quick_look_decides_as_the_close_one() -> None:
    """Around the tolerance of 1e-2, and where squares overflow float32 though the numbers are finite."""
    x, _ = toy_images(3)
    for norm, right in ((0.9901, True), (1.0099, True), (0.9899, False), (1.0101, False)):
        for kind in (np.float32, np.float64):
            if right:
                checked_embeddings((norm * x).astype(kind), SPEC, DIM)
                continue
            with pytest.raises(GuardError, match="3 are not"):
                checked_embeddings((norm * x).astype(kind), SPEC, DIM)
    checked_embeddings((1e25 * x).astype(np.float32), RAW, DIM)
    checked_embeddings((600 * x).astype(np.float16), RAW, DIM)
    with pytest.raises(GuardError, match="1 of 3 embeddings hold NaN"):
        checked_embeddings(np.where(np.arange(3)[:, None] == 1, np.nan, x), RAW, DIM)


def test_a_head_as_a_function_is_its_bank() -> None:
    bank = toy_bank()
    bank.input_mean[0], bank.input_scale[0] = torch.linspace(-1, 1, DIM), 0.3
    mlp = MLPHead(hidden=[8]).bank(1, DIM)
    mlp.reset([3])
    for one in (bank, mlp.eval()):
        for n in (0, 1, 5000):
            x, _ = toy_images(max(n, 1), seed=n)
            found = head_function(one)(x[:n].astype(np.float64))
            with torch.no_grad():
                expected = one(torch.from_numpy(x[:n].astype(np.float32)))[0].double().numpy() if n else np.zeros(0)
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
