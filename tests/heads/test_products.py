from __future__ import annotations

import pytest
import torch

from guardtrain.errors import ConfigError
from guardtrain.heads.products import fast_float32_products, product_dtype


@pytest.mark.parametrize("shapes", [((3, 40, 300), (3, 300, 50)), ((2, 128, 768), (2, 768, 256))], ids=str)
def test_fast_products_have_float32s_rounding_error(shapes):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator) for shape in shapes)
    with fast_float32_products():
        product = torch.bmm(left, right)
    torch.testing.assert_close(product.double(), left.double() @ right.double(), rtol=1e-5, atol=2e-4)


def test_the_setting_is_put_back():
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), fast_float32_products():
        1 / 0  # noqa: B018
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_narrow_batches_keep_float32():
    cpu = torch.device("cpu")
    assert product_dtype("auto", cpu, 16) == product_dtype("float32", cpu, 128) == torch.float32
    assert product_dtype("bfloat16", cpu, 16) == torch.bfloat16


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="allowed: auto, float32, bfloat16"):
        product_dtype("float8", torch.device("cpu"), 128)
