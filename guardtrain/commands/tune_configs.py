"""The configs of `guardtrain train` that the trials of a search are, and the command lines that make the same."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from guardtrain.api.recipe import build_recipe, recipe_settings
from guardtrain.commands.config_path import hydra_opened
from guardtrain.config import TrainConfig, TuneConfig
from guardtrain.config_checks import plain, typed
from guardtrain.config_groups import config_groups
from guardtrain.curves.tuning.settings import DEFAULT_SPACE, TuneSettings
from guardtrain.curves.tuning.space import Parameter, Value, kept_text, read_space
from guardtrain.errors import ConfigError
from guardtrain.grammar import setting
from guardtrain.mixtures import counts

if TYPE_CHECKING:
    from guardtrain.curves.grid import GridPoint
    from guardtrain.curves.tuning.scoring import Candidate

_ELSEWHERE = ("data", "encoder", "trainer", "logger", "out", "data_dir", "cache_dir", "memory_gb", "guard")


@dataclass
class _Override:
    """An override of the command line: its setting or config group, and the whole of it."""

    key: str
    text: str


class TrialConfigs:
    """The configs of `guardtrain train` that trials are, made of the overrides this command was given.

    Raises:
        ConfigError: a space that names what cannot be searched, or what is set besides.
    """

    def __init__(self, settings: TuneConfig) -> None:
        own = {field.name for field in fields(TuneSettings)} | {"out"}
        given = list(HydraConfig.get().overrides.task)
        parsed = OverridesParser.create().parse_overrides(given)
        self._given = [
            _Override(one.key_or_group, text)
            for one, text in zip(parsed, given, strict=True)
            if one.key_or_group.split(".")[0] not in own
        ]
        if settings.selection.method != "fixed":
            raise ConfigError(
                "guardtrain tune chooses hyper-parameters itself; leave selection=fixed, and put what is to be chosen "
                "(loss.l2, optimizer.lr, …) into the space. selection.folds says how many folds judge a trial."
            )
        self._fixed = [] if any(one.key == "selection" for one in self._given) else ["selection=fixed"]
        self._groups = set(config_groups("train"))
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self._seeds = settings.seeds
        self.space = self._read(settings)

    def _read(self, settings: TuneConfig) -> list[Parameter]:
        given = DEFAULT_SPACE if settings.space is None else settings.space
        first = read_space(given)
        for parameter in first:
            head = parameter.name.split(".")[0]
            if head in (*_ELSEWHERE, "selection") or parameter.name == "mixture.seed":
                raise ConfigError(
                    f"space names '{parameter.name}', which is not searched; settings of head, loss, optimizer and "
                    "mixture are. What differs in data or encoder goes out as a sweep: guardtrain train -m …"
                )
            if parameter.name.startswith("mixture.") and not parameter.choices:
                raise ConfigError(f"space.{parameter.name} must have choices: {{choices: [...]}}; mixtures are exact.")
            if any(one.key == parameter.name for one in self._given):
                raise ConfigError(
                    f"{parameter.name} is set and searched. Leave {parameter.name}=… out, or give a space without it: "
                    "space='{SETTING: {low: …, high: …}}'."
                )
        whole = [p.name for p in first if isinstance(self._known(p), int) and not isinstance(self._known(p), bool)]
        return read_space(given, whole)

    def _known(self, parameter: Parameter) -> Any:
        """Return the setting's value without the search, wherever a choice of groups has it."""
        groups = {name: values[0] for name, values in parameter.when if name in self._groups}
        return OmegaConf.select(self._base(groups), parameter.name, default=None)

    def _base(self, groups: Mapping[str, Value]) -> DictConfig:
        chosen = tuple(f"{name}={kept_text(value)}" for name, value in groups.items())
        if chosen not in self._bases:
            texts = [one.text for one in self._given if one.key not in groups]
            with hydra_opened():
                self._bases[chosen] = hydra.compose("train", overrides=[*texts, *self._fixed, *chosen])
        return self._bases[chosen]

    def composed(self, values: Mapping[str, Value]) -> DictConfig:
        """The config of a trial with these parameters."""
        groups = {name: value for name, value in values.items() if name in self._groups}
        config = self._base(groups).copy()
        for name, value in values.items():
            if name in groups:
                continue
            read = OverridesParser.create().parse_override(f"x={kept_text(value)}").value()
            if self._is_new(config, name):
                with open_dict(config):
                    OmegaConf.update(config, name, read)
            else:
                OmegaConf.update(config, name, read)
        return config

    @staticmethod
    def _is_new(config: DictConfig, name: str) -> bool:
        """Whether a setting of a `_target_` is not mentioned by its file yet."""
        parent = OmegaConf.select(config, name.rpartition(".")[0])
        return isinstance(parent, DictConfig) and "_target_" in parent and name.rpartition(".")[2] not in parent

    def first(self) -> TrainConfig:
        """The config of any trial: what all have in common is right in it."""
        return typed(self.composed(self._any()), TrainConfig)

    def _any(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for parameter in self.space:
            if parameter.asked(values):
                values[parameter.name] = parameter.grid()[0]
        return values

    def candidate(self, values: Mapping[str, Value]) -> Candidate:
        """Return the settings that a trial with these parameters trains."""
        from guardtrain.curves.tuning.scoring import Candidate

        settings = typed(self.composed(values), TrainConfig)
        recipe = build_recipe(settings)
        return Candidate(recipe, self._points(settings), settings.mixture.rounding, recipe_settings(settings, recipe))

    def _points(self, settings: TrainConfig) -> list[GridPoint]:
        from guardtrain.curves.grid import GridPoint
        from guardtrain.curves.results import NO_CONTROL

        mix = settings.mixture
        counts(mix.budget, mix.ratio, mix.arm, mix.rounding, mix.control)
        own = {**asdict(mix), **({"arm": "replace", "control": NO_CONTROL} if mix.ratio == 0 else {})}
        del own["rounding"], own["seed"]
        return [GridPoint(seed=mix.seed + s, **own) for s in range(self._seeds)]

    def mixtures(self) -> list[tuple[GridPoint, str]]:
        """Every mixture a trial may train on, with its rounding."""
        from guardtrain.curves.tuning.scoring import product

        choices = {p.name: p.choices for p in self.space if p.name.startswith("mixture.")}
        found: dict[tuple[GridPoint, str], None] = {}
        rest = {name: value for name, value in self._any().items() if name not in choices}
        for chosen in product(choices):
            settings = typed(self.composed({**rest, **chosen}), TrainConfig)  # type: ignore[dict-item]
            found |= {(point, settings.mixture.rounding): None for point in self._points(settings)}
        return list(found)

    def common(self) -> dict[str, Any]:
        """The settings of `train` that all trials share and that decide a score."""
        config = plain(self.first())
        for name in _ELSEWHERE:  # the data by its digest, the encoder in that; the rest changes no score
            config.pop(name)
        for name in (parameter.name for parameter in self.space):
            part, _, last = name.rpartition(".")
            inner = config
            for key in part.split(".") if part else ():
                inner = inner.get(key, {})
            inner.pop(last, None)
        return dict(config)

    def command(self, values: Mapping[str, Value], out: Path) -> str:
        """`guardtrain train …` that makes the run of a trial."""
        groups = [name for name in values if name in self._groups]
        config = self._base({name: values[name] for name in groups})
        chosen = [f"{name}={kept_text(values[name])}" for name in groups]
        for name, value in values.items():
            if name not in groups:
                chosen.append(f"{'+' if self._is_new(config, name) else ''}{name}={kept_text(value)}")
        texts = [one.text for one in self._given if one.key not in groups]
        return shlex.join(["guardtrain", "train", *texts, *self._fixed, *chosen, setting("out", str(out))])
