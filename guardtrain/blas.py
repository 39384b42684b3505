"""The threads of numpy's and scipy's products."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  # it brings a library of its own, which must be there to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Inside, each product of numpy, scipy and scikit-learn takes one thread; for fits of hundreds of small ones.

    Threads that are woken for a product of microseconds wait for each other, and spin meanwhile: a fit in which a
    minimiser takes a thousand small steps takes up to twenty times as long with two.
    """
    return _controller().limit(limits=1, user_api="blas")
