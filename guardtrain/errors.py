"""Errors meant for the user: each message says what was wrong, where, what is allowed and what to do."""

from collections.abc import Iterable


class GuardtrainError(Exception):
    """Base of every error the user can mend; the CLI prints its message without a traceback."""


class ConfigError(GuardtrainError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(GuardtrainError):
    """Records, images or arrays that cannot be used as they are."""


class EncoderError(GuardtrainError):
    """An encoder that cannot be loaded, or embeddings that come from another one."""


class StoreError(GuardtrainError):
    """An embedding store that is incomplete, damaged, or not what was asked for."""


class EngineError(GuardtrainError):
    """Workers that cannot be had, or that die."""


class MixtureError(GuardtrainError):
    """A mixture the pools cannot supply; the message gives what there is and what is needed."""


class GuardError(GuardtrainError):
    """A guard that is incomplete, damaged or of a newer format, or that is asked for what it cannot do."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """A sentence for an error, with a space before it, that names what is spelt most like `name`; "" where nothing is.

    >>> did_you_mean("bugdets", ["budgets", "ratios"]), did_you_mean("x", ["budgets", "ratios"])
    (" Did you mean 'budgets'?", '')
    """
    import difflib  # not before something is wrong

    near = difflib.get_close_matches(name, list(allowed), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
