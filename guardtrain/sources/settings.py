"""The settings of data: the pools that a mixture draws from, the test sets, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from guardtrain.errors import ConfigError

HOLD_OUT = ("hold_out", "groups", "fraction", "split", "categories")  # of a test set that is taken out of a pool


@dataclass
class DataOrigin:
    """Where data come from and on what terms; shown and stored, never acted upon.

    Args:
        url: the data set's page.
        licence: as its authors state it, such as `cc-by-4.0`; null where they state none.
        access: `open` to all, or `gated`: terms must be accepted (and may be granted by hand) first.
        terms: what else its users agree to.
        paper: the publication.
    """

    url: str | None = None
    licence: str | None = None
    access: str = "open"
    terms: str | None = None
    paper: str | None = None

    def __post_init__(self) -> None:
        if self.access not in ("open", "gated"):
            raise ConfigError(f"data.about.NAME.access is '{self.access}'; allowed: open, gated.")


@dataclass
class DataSettings:
    """The pools a mixture draws from and the test sets.

    Args:
        name: what results, folders and plots call this data.
        real: the source of real images, `{_target_: ..., ...}`.
        pairs: the source of counterfactual pairs; null where there are none.
        test: test sets by name: each a source, or `{hold_out: real|pairs, groups: N | fraction: F | split: test}`,
            which takes whole groups out of that pool before anything is trained; with `categories: [NAME, ...]` it is
            the pool's records of these categories, which then are in no pool: what no training has seen.
            `data.test=NAME` on the command line (or a list of names) keeps these alone; null is none.
        hold_out_seed: draws the held-out groups; the same for every seed of a curve.
        swapped: share of the pair pool's pairs, 0 to 1, whose two labels are swapped before anything is drawn: for
            studies of wrong labels. Test sets keep theirs.
        about: url, licence, access, terms and paper of a source by its name here, for those that are not the user's
            own: `+data.about.real.licence=cc-by-4.0`.
    """

    name: str = MISSING
    real: Any = MISSING
    pairs: Any = None
    test: dict[str, Any] = field(default_factory=dict)
    hold_out_seed: int = 0
    swapped: float | None = None
    about: dict[str, Any] = field(default_factory=dict)  # of DataOrigin; typed so, nothing could be added with a plus

    def __post_init__(self) -> None:
        if self.swapped is not None and not 0 <= self.swapped <= 1:
            raise ConfigError(f"data.swapped is a share between 0 and 1; it is {self.swapped:g}.")
        self.about = {name: _origin(name, given) for name, given in self.about.items()}


def _origin(name: str, given: Any) -> DataOrigin:
    """Check and return what `data.about.NAME` says."""
    if isinstance(given, DataOrigin):
        return given
    known = [field.name for field in fields(DataOrigin)]
    if not isinstance(given, Mapping):
        raise ConfigError(f"data.about.{name} must be a mapping of {', '.join(known)}; got {given!r}.")
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"There is no setting 'data.about.{name}.{key}'. Allowed here: {', '.join(known)}.")
        if not isinstance(value, str | None):
            raise ConfigError(f"data.about.{name}.{key} must be text; got {value!r}.")
    return DataOrigin(**given)
