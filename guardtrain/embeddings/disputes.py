"""Records that contradict each other: the same by their id or image, and not the same by their label."""

from __future__ import annotations

from collections.abc import Sequence

from guardtrain.embeddings.differences import Difference
from guardtrain.errors import ConfigError

DISPUTED = ("error", "first", "last", "drop")


def check_disputed(disputed: str, allowed: Sequence[str] = DISPUTED) -> None:
    """Refuse a value of `disputed` that there is not.

    Raises:
        ConfigError: with those there are.
    """
    if disputed not in allowed:
        raise ConfigError(f"disputed is '{disputed}'; allowed: {', '.join(allowed)}.")


def ways_out(first: str, last: str, drop: str | None = None) -> str:
    """Say what `disputed` can be set to, for the end of an error.

    Args:
        first, last: what counts then.
        drop: what is left out then; None where nothing can be.
    """
    ways = [f"disputed=first ({first})", f"disputed=last ({last})"] + ([f"disputed=drop ({drop})"] if drop else [])
    return f"Mend those that are wrong, or add {', '.join(ways[:-1])} or {ways[-1]}."


def examples(found: Difference, first: str, last: str) -> str:
    """The first few, with both values: "r1 (0 in the store, 1 now), r5 (1 in the store, 0 now)"."""
    shown = [f"{name} ({before} {first}, {now} {last})" for name, before, now in found.examples]
    more = len(found.rows) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
