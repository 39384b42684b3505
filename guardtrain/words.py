"""Words for messages: lists that end somewhere, and names that may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_SHOWN = 8  # values listed in an error before "and N more"


def listed(values: Iterable[Any], shown: int = _SHOWN) -> str:
    """Return `a, b, c and 7 more`, for error messages."""
    values = [str(v) for v in values]
    more = len(values) - shown
    return (", ".join(values[:shown]) or "none") + (f" and {more} more" if more > 0 else "")


def near(name: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` where something in `allowed` is close to `name`, else nothing."""
    allowed = list(allowed)
    close = [a for a in allowed if a.lower() == name.lower()] or difflib.get_close_matches(name, allowed, n=3)
    if len(name) > 2:
        close += [a for a in allowed if a not in close and (name.lower() in a.lower() or a.lower() in name.lower())]
    return f" Did you mean {' or '.join(repr(c) for c in close[:3])}?" if close else ""
