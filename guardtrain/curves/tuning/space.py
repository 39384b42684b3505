"""The search space: parameters read from a config, asked of Optuna, and written as settings of the command line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guardtrain.errors import ConfigError, did_you_mean
from guardtrain.grammar import setting_text

if TYPE_CHECKING:
    from optuna import Trial

_KEYS = ("low", "high", "log", "step", "points", "choices", "when")
_POINTS = 10  # of a range in a grid
_MOST_POINTS = 100_000  # of a whole grid
_TEXT = ("[", "{", "'")  # what is kept of a choice starts so where it is a setting's text already

Value = float | int | str | bool | None
"""What Optuna keeps of a parameter; a choice that is a list or a mapping is kept as the text of its setting."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of the space.

    Args:
        name: of the setting, with dots, or of a config group.
        low, high, log, step: of a range; high is in it.
        points: of the range in a grid.
        choices: what Optuna keeps of each choice; empty for a range.
        integer: whether the setting is a whole number.
        when: other parameters, and the values one of which each must have.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    points: int = _POINTS
    choices: tuple[Value, ...] = ()
    integer: bool = False
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def asked(self, sofar: Mapping[str, Value]) -> bool:
        """Whether it is one of a trial whose parameters before it are these."""
        return all(sofar.get(name) in values for name, values in self.when)

    def suggest(self, trial: Trial) -> Value:
        """Return the parameter's value in an Optuna trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.integer:
            return trial.suggest_int(
                self.name, round(self.low), round(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def grid(self) -> list[Value]:
        """Return the parameter's values in a grid, ascending where it is a range.

        >>> Parameter("loss.l2", low=0.01, high=100, log=True, points=5).grid()
        [0.01, 0.1, 1.0, 10.0, 100.0]
        """
        if self.choices:
            return list(self.choices)
        if self.step is not None or (self.integer and self.high - self.low < self.points):
            step = self.step or 1
            found = [self.low + i * step for i in range(math.floor((self.high - self.low) / step + 1e-9) + 1)]
        else:
            low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
            even = [low + (high - low) * i / max(1, self.points - 1) for i in range(self.points)]
            found = [float(f"{10**v:.12g}") for v in even] if self.log else even
        found = [min(max(value, self.low), self.high) for value in found]
        return list(dict.fromkeys(round(v) for v in found)) if self.integer else list(found)


def read_space(space: Any, integers: Sequence[str] = ()) -> list[Parameter]:
    """The parameters of `space`, those that others depend on first.

    Args:
        space: setting -> range or choices, see `TuneSettings`.
        integers: settings that are whole numbers.

    Raises:
        ConfigError: a description that is not right, and what is allowed.

    >>> [p.name for p in read_space({"loss.l2": {"low": 0.1, "high": 10, "log": True}})]
    ['loss.l2']
    """
    if not isinstance(space, Mapping):
        raise ConfigError("space must be a mapping, such as space='{loss.l2: {low: 1e-3, high: 1e3, log: true}}'.")
    found = [_parameter(str(name), node, str(name) in integers) for name, node in space.items()]
    if not found:
        raise ConfigError("space is empty: name at least one setting, such as loss.l2: {low: 1e-3, high: 1e3}.")
    ordered: list[Parameter] = []
    while len(ordered) < len(found):
        there = {parameter.name for parameter in ordered}
        ready = [p for p in found if p.name not in there and all(name in there for name, _ in p.when)]
        if not ready:
            left = next(p for p in found if p.name not in there)
            raise ConfigError(
                f"space.{left.name}.when names {', '.join(name for name, _ in left.when)}; it must name other settings "
                "of the space, and no two may wait for each other."
            )
        ordered += ready
    return ordered


def suggest(trial: Trial, space: Sequence[Parameter]) -> dict[str, Value]:
    """The parameters of an Optuna trial."""
    values: dict[str, Value] = {}
    for parameter in space:
        if parameter.asked(values):
            values[parameter.name] = parameter.suggest(trial)
    return values


def grid(space: Sequence[Parameter]) -> list[dict[str, Value]]:
    """Every point of a grid over the space, each once.

    Raises:
        ConfigError: more than anybody waits for.
    """
    lists = [parameter.grid() for parameter in space]
    if (count := math.prod(map(len, lists))) > _MOST_POINTS:
        raise ConfigError(f"The grid has {count:,} points; give fewer choices or points, or sampler=random.")
    found: dict[tuple[tuple[str, Value], ...], dict[str, Value]] = {}
    for values in itertools.product(*lists):
        point: dict[str, Value] = {}
        for parameter, value in zip(space, values, strict=True):
            if parameter.asked(point):
                point[parameter.name] = value
        found.setdefault(tuple(point.items()), point)
    return list(found.values())


def _kept(value: Any) -> Value:
    """Return what Optuna keeps of a choice: words as they are, for whoever reads the study."""
    plain = (
        value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and value[:1] not in _TEXT)
    )
    return value if plain else setting_text(value, quote="'")  # as it always was: a search goes on


def kept_text(value: Value) -> str:
    """A parameter's value as Hydra reads it behind `SETTING=`."""
    if isinstance(value, str) and value[:1] in _TEXT:
        return value
    return setting_text(value, quote="'")


def _parameter(name: str, node: Any, integer: bool) -> Parameter:
    place = f"space.{name}"
    if isinstance(node, (list, tuple)):
        node = {"choices": node}
    if not isinstance(node, Mapping):
        raise ConfigError(f"{place} is {node!r}; it must be {{low: …, high: …}} or {{choices: [...]}}.")
    for key in node:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS)
            raise ConfigError(f"There is no setting '{place}.{key}'.{hint} Allowed here: {', '.join(_KEYS)}.")
    when = _conditions(place, node.get("when"))
    choices = node.get("choices")
    if choices is not None:
        if extra := [key for key in node if key not in ("choices", "when")]:
            raise ConfigError(f"{place} has choices and {extra[0]}; give choices, or a range.")
        if not isinstance(choices, (list, tuple)) or not choices:
            raise ConfigError(f"{place}.choices must be a list of at least one value.")
        kept = tuple(map(_kept, choices))
        if len({(type(value), value) for value in kept}) < len(kept):
            raise ConfigError(f"{place}.choices lists a value twice: {list(choices)}.")
        return Parameter(name, choices=kept, when=when)
    for key in ("low", "high", *(key for key in ("step", "points") if node.get(key) is not None)):
        value = node.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"{place}.{key} must be a number; it is {value!r}.")
    low, high, log = float(node["low"]), float(node["high"]), node.get("log") or False
    step, points = node.get("step"), node.get("points") or _POINTS
    if not isinstance(log, bool):
        raise ConfigError(f"{place}.log must be true or false; it is {log!r}.")
    if low >= high:
        raise ConfigError(f"{place}.low is {low:g}, which is not below high, {high:g}.")
    if log and low <= 0:
        raise ConfigError(f"{place}.low is {low:g}; on a log scale it must be above 0.")
    if step is not None and (step <= 0 or log):
        raise ConfigError(f"{place}.step is {step:g}; it must be above 0, and goes with log: false.")
    if integer and any(value != round(value) for value in (low, high, step or 1)):
        raise ConfigError(f"{place} is a whole number; low, high and step must be whole numbers, too.")
    if points != int(points) or points < 2:
        raise ConfigError(f"{place}.points must be a whole number of at least 2; it is {points!r}.")
    return Parameter(name, low, high, log, step, int(points), (), integer, when)


def _conditions(place: str, when: Any) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    if when is None:
        return ()
    if not isinstance(when, Mapping):
        raise ConfigError(f"{place}.when must be a mapping, such as {{head: mlp}}; it is {when!r}.")
    return tuple(
        (str(name), tuple(map(_kept, value)) if isinstance(value, (list, tuple)) else (_kept(value),))
        for name, value in when.items()
    )
