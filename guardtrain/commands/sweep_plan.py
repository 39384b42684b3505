"""The jobs of a sweep: every combination of what is swept, composed and checked before anything is run."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from guardtrain.api.fitting import grid_check, require_mixture
from guardtrain.commands.unmentioned import added, replaces
from guardtrain.config import SCHEMAS, CurveConfig, TrainConfig
from guardtrain.config_checks import explain, plain, without_value
from guardtrain.config_groups import config_groups
from guardtrain.curves.folder import ENGINE_VERSION
from guardtrain.errors import ConfigError, GuardtrainError, MixtureError
from guardtrain.grammar import quoted
from guardtrain.mixtures import Supply
from guardtrain.version import __version__

RESUMED = ("train", "curve")  # commands whose jobs are skipped where they are done, and embed before all
ONE_RUN = ("train", "finetune", "tune")  # commands that keep one head or search a folder: each job gets its own
_OF_MIXTURES = (*RESUMED, "finetune")  # commands whose settings say how many images a job draws
_NO_RESULT = ("out", "cache_dir", "data_dir", "memory_gb", "logger")  # settings that change no result
_EXPERIMENT = "experiment"  # the group that chooses among the others
_LONGEST = 180  # characters of a folder's name; file systems allow 255 bytes
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Planned:
    """A job of a sweep.

    Args:
        overrides: for Hydra, which composes them anew in the job's process.
        folder: its own.
        label: what is swept, with its values.
        log: its log.
        key: of all that decides its results; a job of the same key need not be done again.
    """

    overrides: list[str]
    folder: Path
    label: str
    log: Path
    key: str


@dataclass(frozen=True)
class _Composed:
    """A job's config.

    Args:
        config: composed.
        taken: what of the overrides it took.
        overrides: the same as Hydra takes them.
        left_out: why not the others, by setting.
        settings: its settings as objects; None for a command that draws no mixtures.
    """

    config: DictConfig
    taken: list[str]
    overrides: list[str]
    left_out: dict[str, str]
    settings: CurveConfig | TrainConfig | None


def optional_settings(command: str, overrides: Sequence[str]) -> list[str]:
    """The settings below a swept config group: an option of it that has no such setting does without.

    >>> optional_settings("train", ["head=linear,mlp", "head.dropout=0.1", "loss.l2=1"])
    ['head.dropout']
    """
    parsed = [_parsed(text) for text in overrides]
    groups = set(config_groups(command))
    swept = {one.key_or_group for one in parsed if one.is_sweep_override()} & groups
    above = tuple(f"{group}." for group in (groups if _EXPERIMENT in swept else swept))
    return [one.key_or_group for one in parsed if _sets_a_value(one) and one.key_or_group.startswith(above)]


def grid_size(loader: ConfigLoaderImpl, given: Sequence[str]) -> int:
    """How many combinations overrides have; as many jobs at most, for some may be the same."""
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(given))
    return len(BasicSweeper.split_arguments(parsed, None)[0])


def plan(
    command: str,
    loader: ConfigLoaderImpl,
    config: DictConfig,
    base: Path,
    given: Sequence[str],
    say: Callable[[str], None],
) -> tuple[list[Planned], int]:
    """Every job of the grid, composed: a value that is wrong is refused before anything is run.

    Jobs that there are too few images for are left out. On the way each source is embedded once for each encoder it is
    needed with.

    Args:
        command: which.
        loader: Hydra's.
        config: the sweep's, its `hydra` part with it.
        base: the sweep's folder.
        given: all overrides of its jobs, swept or not.
        say: tells the user, a line a call.

    Returns:
        The jobs, and how many are left out.

    Raises:
        ConfigError: a value that is wrong, or a setting that no job has.
        MixtureError: there are too few images for any job.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(given))
    swept = {one.get_key_element() for one in parsed if one.is_sweep_override()}
    composer = _Composer(command, loader, config, optional_settings(command, given))
    grid = BasicSweeper.split_arguments(parsed, None)[0]
    say(f"{len(grid)} jobs in {base}")
    found: dict[Path, tuple[_Composed, str]] = {}
    seen: set[tuple[str, ...]] = set()
    without: dict[str, dict[str, str]] = {}  # by setting: why jobs do without it, by what is swept of them
    lacking: dict[str, int] = {}
    for texts in grid:
        composed = composer.compose(texts, len(found))
        label = " ".join(text for text in composed.taken if text.partition("=")[0] in swept)
        for name, reason in composed.left_out.items():
            lacking[name] = lacking.get(name, 0) + 1
            without.setdefault(name, {}).setdefault(reason, label)
        if tuple(composed.taken) in seen:
            continue
        seen.add(tuple(composed.taken))
        found[base / folder_name(str(composed.config.hydra.sweep.subdir))] = composed, label
    for name, count in lacking.items():
        if count == len(grid):
            reasons = " ".join(f"With {label}: {reason}" for reason, label in without[name].items())
            raise ConfigError(f"No job of this sweep has the setting '{name}'. {reasons}")
        say(f"{name} is set where there is one: {count} of {len(grid)} jobs have none")
    if len(found) < len(grid):
        say(f"{len(found)} of the {len(grid)} differ")
    sources = _Sources(say)
    fitting = _those_that_fit(found, sources)
    keys = _keys(command, [composed.settings for composed, _ in fitting.values()], sources)
    jobs = []
    for (folder, (composed, label)), key in zip(fitting.items(), keys, strict=True):
        ends = [f"hydra.sweep.dir={quoted(str(base))}", f"hydra.sweep.subdir={quoted(folder.name)}"]
        ends += [f"out={quoted(str(folder))}"] if command in ONE_RUN else []
        log = folder / f"{composed.config.hydra.job.name}.log"
        jobs.append(Planned([*composed.overrides, *ends], folder, label or folder.name, log, key))
    return jobs, len(found) - len(fitting)


@dataclass
class _Composer:
    """Composes jobs' configs: Hydra does so once for each choice of groups, and values are set on copies of that.

    Hydra takes .15 s of processor time for a config, which is minutes for the jobs of a night.

    Args:
        command: which.
        loader: Hydra's.
        sweep: the sweep's config.
        optional: settings that a job which has none does without.
    """

    command: str
    loader: ConfigLoaderImpl
    sweep: DictConfig
    optional: Collection[str]
    _bases: dict[tuple[str, ...], tuple[DictConfig, DictConfig | None]] = field(default_factory=dict)

    def compose(self, texts: Sequence[str], number: int) -> _Composed:
        """The config of the job with these overrides."""
        values = {text for text in texts if self._is_late(_parsed(text))}
        whole, checked = self._base(tuple(text for text in texts if text not in values))
        config, checked = whole.copy(), None if checked is None else checked.copy()
        used, left_out = [], {}
        written: dict[str, list[str]] = {}  # as Hydra takes it, where it would not take it as it is
        for text in texts:
            if text in values:
                one, anew = _parsed(text), False
                try:
                    ConfigLoaderImpl._apply_overrides_to_config([one], config)
                except ConfigCompositionException as error:
                    cause = error.__cause__
                    if not isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
                        raise
                    if (texts_added := added(self.command, one, config, str(cause.full_key))) is not None:
                        anew, written[text] = replaces(one, config), texts_added
                        ConfigLoaderImpl._apply_overrides_to_config([_parsed(more) for more in written[text]], config)
                    elif one.key_or_group in self.optional:
                        left_out[one.key_or_group] = explain(cause)
                        continue
                    else:
                        raise
                if checked is not None:
                    _set(checked, one, anew)
            used.append(text)
        job = config.hydra.job
        with open_dict(config):  # a folder may be named for it
            job.num = number
            kept = [one for text in used if not (one := _parsed(text)).is_hydra_override()]
            names = job.config.override_dirname
            job.override_dirname = get_overrides_dirname(kept, names.exclude_keys, names.item_sep, names.kv_sep)
        texts = [more for text in used for more in written.get(text, [text])]
        return _Composed(config, used, texts, left_out, None if checked is None else _as_objects(checked))

    def _is_late(self, one: Override) -> bool:
        """Whether a value is set when all groups are in place, as Hydra does it."""
        if any(text.startswith("hydra.searchpath") for text in self.sweep.hydra.overrides.hydra):
            return False
        return _sets_a_value(one) and not self.loader.repository.group_exists(one.key_or_group)

    def _base(self, texts: tuple[str, ...]) -> tuple[DictConfig, DictConfig | None]:
        """The config without late values, and its part that the command's schema describes, with the schema's types."""
        if texts not in self._bases:
            config = self.loader.load_sweep_config(self.sweep, list(texts))
            checked = None
            if self.command in _OF_MIXTURES:
                data = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
                data.pop("hydra")
                try:
                    checked = OmegaConf.merge(OmegaConf.structured(SCHEMAS[self.command]), data)
                except OmegaConfBaseException as error:
                    raise ConfigError(explain(error)) from error
            self._bases[texts] = config, cast("DictConfig | None", checked)
        return self._bases[texts]


def _set(config: DictConfig, one: Override, anew: bool) -> None:
    try:
        OmegaConf.update(config, one.key_or_group, one.value(), merge=not anew)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error


def _as_objects(config: DictConfig) -> Any:
    """Return the config as objects, as `typed` makes them; its types are checked."""
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(without_value(missing))
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error


@cache
def _parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _sets_a_value(one: Override) -> bool:
    """Whether it sets what is there already: it adds, removes and chooses nothing, and is none of Hydra's."""
    plainly = not (one.is_add() or one.is_force_add() or one.is_delete() or one.is_hydra_override())
    return plainly and one.package is None


def folder_name(name: str) -> str:
    """One folder's name for a job's overrides; long ones, and those with slashes, end in their hash."""
    short = name.replace("/", "-")[:_LONGEST]
    return (name if short == name else f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:8]}") or "job"


@dataclass
class _Sources:
    """The sources of jobs, read once: what of their labels is unsafe is said, and how many images there are known."""

    say: Callable[[str], None]
    _read: dict[str, tuple[dict[str, Any], Supply] | None] = field(default_factory=dict)

    def supply(self, settings: CurveConfig | TrainConfig) -> Supply | None:
        """How many images a job's pools hold; None where that cannot be known: the job will say why, in its log."""
        found = self._of(settings)
        return None if found is None else found[1]

    def placed(self, settings: CurveConfig | TrainConfig) -> dict[str, Any] | None:
        """The sources that are embedded, by their place in the config; None where they cannot be read."""
        found = self._of(settings)
        return None if found is None else found[0]

    def _of(self, settings: CurveConfig | TrainConfig) -> tuple[dict[str, Any], Supply] | None:
        from guardtrain.commands.data import read_supply, sources_of

        key = json.dumps(plain(settings)["data"], sort_keys=True, default=str)
        if key not in self._read:
            try:
                sources, tests = sources_of(settings.data)
                own = {f"data.test.{name}": source for name, source in tests.items() if hasattr(source, "records")}
                placed = {**{f"data.{name}": source for name, source in sources.items()}, **own}
                self._read[key] = placed, read_supply(settings.data, sources, tests, self.say)
            except (GuardtrainError, OSError):
                self._read[key] = None
        return self._read[key]


def _those_that_fit(found: dict[Path, tuple[_Composed, str]], sources: _Sources) -> dict[Path, tuple[_Composed, str]]:
    """Without the jobs that there are too few images for, which are told with the settings that fit.

    Raises:
        MixtureError: nothing is left.
    """
    reasons: dict[str, list[str]] = {}  # why jobs are left out, with what is swept of them
    fitting = {}
    for folder, (composed, label) in found.items():
        if reason := _lacks(composed, sources):
            reasons.setdefault(reason, []).append(label)
        else:
            fitting[folder] = composed, label
    if found and not fitting:
        raise MixtureError("There are too few images for this. " + "\n".join(reasons))
    for reason, labels in reasons.items():
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        sources.say(f"left out: {labels[0]}{more}: {reason}")
    return fitting


def _lacks(composed: _Composed, sources: _Sources) -> str:
    """Why there are too few images for a job; empty where there are enough, or nobody knows."""
    settings = composed.settings
    if settings is None or (supply := sources.supply(settings)) is None:
        return ""
    try:
        if isinstance(settings, CurveConfig):
            grid_check(settings.grid, composed.taken, lambda _: None)(supply)
        else:
            require_mixture(settings.mixture, supply)
    except MixtureError as error:
        return str(error)
    return ""


def _keys(command: str, jobs: Sequence[CurveConfig | TrainConfig | None], sources: _Sources) -> Iterator[str]:
    """The resume keys of jobs; on the way each source is embedded once for each encoder it is needed with.

    A key covers all settings that change a result, the embeddings and the columns of the records, and the engine's
    version. torch is loaded only where something is left to embed. Jobs that are never skipped have keys of their own.
    """
    states: dict[str, str] = {}
    for settings in jobs:
        if settings is None or command not in RESUMED:
            yield uuid.uuid4().hex
            continue
        about = plain(settings)
        needs = json.dumps([about["data"], about["encoder"], about["cache_dir"]], sort_keys=True, default=str)
        if needs not in states:
            try:
                states[needs] = _data_state(settings, sources)
            except (GuardtrainError, OSError):
                states[needs] = uuid.uuid4().hex  # its jobs will say so themselves, each in its log
        deciding = {name: value for name, value in about.items() if name not in (*_NO_RESULT, "encoder")}
        whole = [__version__, ENGINE_VERSION, command, states[needs], deciding, _files_in(about["head"])]
        yield hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _data_state(settings: CurveConfig | TrainConfig, sources: _Sources) -> str:
    """Hex sha256 over embeddings, their encoder and the records, embedded now where they are not in the cache."""
    from guardtrain.commands.data import embed_source

    if (placed := sources.placed(settings)) is None:
        return uuid.uuid4().hex
    digest = hashlib.sha256()
    for place, source in placed.items():
        part = embed_source(source, place, settings.encoder, settings.cache_dir, sources.say)
        digest.update(f"{place} {part.spec.fingerprint} {part.matrix.shape}".encode())
        for column in part.records.table.columns:
            digest.update(json.dumps(column.to_pylist(), default=str).encode())
        for start in range(0, len(part), _BLOCK_ROWS):
            digest.update(np.ascontiguousarray(part.matrix[start : start + _BLOCK_ROWS]).data)
    return digest.hexdigest()


def _files_in(node: Any) -> list[str]:
    """Digests of the files that a head names: another file is another head."""
    if isinstance(node, Mapping):
        return [digest for name in sorted(node) for digest in _files_in(node[name])]
    if isinstance(node, str) and os.sep in node and Path(node).is_file():
        return [hashlib.sha256(Path(node).read_bytes()).hexdigest()]
    return []
