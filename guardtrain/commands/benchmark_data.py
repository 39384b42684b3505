"""From what a user calls `data=…` and `guards=…` to data sets and guards of a benchmark."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from guardtrain.benchmarks.scores import Contender, DataSet
from guardtrain.benchmarks.settings import BenchmarkSettings
from guardtrain.commands.config_path import hydra_opened, option_files
from guardtrain.commands.data import hold_out, read_labels
from guardtrain.config import AuditConfig
from guardtrain.config_checks import build, typed
from guardtrain.encoders.spec import EncoderSettings, EncoderSpec
from guardtrain.errors import ConfigError, DataError
from guardtrain.grammar import setting_text
from guardtrain.sources.settings import DataSettings
from guardtrain.sources.unclear import settings_told

if TYPE_CHECKING:
    from guardtrain.embeddings import Embeddings
    from guardtrain.sources.base import Source

_OF_A_SET = ("_target_", "path", "root", "config")
_NAMELESS = ("records", "data", "images", "labels", "metadata", "manifest", "index", "table")  # files, or folders
_OWN_HEADS = ("guardtrain.benchmarks.concepts.ConceptHead",)


def data_sets(settings: BenchmarkSettings, say: Callable[[str], None] = lambda line: None) -> list[DataSet]:
    """The data sets that `settings.data_sets` names, their records read.

    Args:
        settings: as given.
        say: told of each what of its labels was taken as unsafe.

    Raises:
        ConfigError, DataError: one that is not described rightly, or there twice.
    """
    found = [one for name, what in _named(settings.data_sets) for one in _data_set(name, what, settings)]
    if not found:
        raise ConfigError("Name at least one data set: data=FILE, data=[FILE,STORE,…], or the name of a data config.")
    names = [one.name for one in found]
    if double := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"Two data sets are called '{double[0]}'; name them: 'data={{NAME: PATH, OTHER: PATH}}'.")
    for one in found:
        if one.records.taken is not None:
            say(f"{one.name}: {len(one.records):,} labels, {one.records.taken}")
    return found


def _named(given: Any) -> Iterator[tuple[str | None, Any]]:
    if isinstance(given, str) or (isinstance(given, Mapping) and any(key in given for key in _OF_A_SET)):
        yield None, given
    elif isinstance(given, Mapping):
        yield from ((str(name), what) for name, what in given.items())
    elif isinstance(given, list | tuple):
        for one in given:
            yield from _named(one)
    else:
        raise ConfigError(f"data must be a name, a path, a mapping or a list of these; it has {given!r}.")


def _data_set(name: str | None, what: Any, settings: BenchmarkSettings) -> list[DataSet]:
    place = f"data.{name}" if name else "data"
    if isinstance(what, str):
        config, _, part = what.partition(":")
        if config in _options("data"):
            return _of_config(name, config, part or None, {}, _reader(settings, what, {"config": what}), settings)
        read = _reader(settings, what, {"path": what})
        return [DataSet(name or _stem(what), read(_source(what, {}, place)))]
    if not isinstance(what, Mapping):
        raise ConfigError(f"{place} must be a path, the name of a data config or a mapping; it is {what!r}.")
    rest, read = dict(what), _reader(settings, what, what)
    made_by = rest.pop("made_by", None)
    if "config" in rest:
        config, _, part = str(rest.pop("config")).partition(":")
        if config not in _options("data"):
            raise ConfigError(f"There is no data config '{config}'; there are: {', '.join(_options('data'))}.")
        sets = _of_config(name, config, part or None, rest, read, settings)
    elif "_target_" in rest:
        sets = [DataSet(name or "data", read(build(rest, place)))]
    else:
        key = "path" if "path" in rest else "root"
        if key not in rest:
            raise ConfigError(
                f"{place} needs path, _target_ or config; it has {', '.join(map(str, rest)) or 'nothing'}."
            )
        path = str(rest.pop(key))
        sets = [DataSet(name or _stem(path), read(_source(path, rest, place)))]
    spec = None if made_by is None else _made_by(str(made_by), place)
    return [replace(one, made_by=spec) for one in sets]


Reader = Callable[..., "Source"]  # a source, and where among a data set's settings its own are -> the source, read


def _reader(settings: BenchmarkSettings, what: Any, given: Mapping[str, Any]) -> Reader:
    """Return the reader of a source's records; what its labels lack is told as a whole `data=…` that has it.

    Args:
        settings: with all data sets.
        what: one of them, as it is given there.
        given: the same as a mapping.
    """

    from guardtrain.sources.images import MissingImages
    from guardtrain.sources.manifest import ManifestSource

    def read(source: Source, *inside: str) -> Source:
        def line(setting: str, value: Any) -> str:
            own: dict[str, Any] = {setting: value}
            for key in reversed(inside):
                own = {key: own}
            whole = _replaced(settings.data_sets, what, _merged(given, own))
            return shlex.quote(f"data={setting_text(whole, spaced=True)}")

        read_labels(source, "data", lambda text: None, line)
        if isinstance(source, ManifestSource):
            try:
                with settings_told(line):
                    source.content_key()
            except MissingImages:
                pass  # that no setting would find: whoever needs them says so
        return source

    return read


def _replaced(given: Any, what: Any, by: Any) -> Any:
    """`given` with one of its data sets replaced."""
    if given is what or given == what:
        return by
    if isinstance(given, list | tuple):
        return [_replaced(one, what, by) for one in given]
    return {key: _replaced(one, what, by) for key, one in given.items()} if isinstance(given, Mapping) else given


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`one` with what `other` has, mappings put into mappings."""
    both = {key: value for key, value in other.items() if key not in one}
    return {
        key: _merged(value, other[key]) if isinstance(value, Mapping) and key in other else other.get(key, value)
        for key, value in one.items()
    } | both


def _source(path: str, rest: Mapping[str, Any], place: str) -> Source:
    """The source of a file or folder, by what it is; `rest` are further settings of the source."""
    from guardtrain.embeddings.store import is_store
    from guardtrain.sources.paths import is_saved_folder
    from guardtrain.sources.tables import FORMATS

    where = Path(path).expanduser()
    ending = where.suffix.lower()
    if is_saved_folder(path):
        target, key = "sources.HuggingFaceSource", "path"
    elif where.is_dir():
        target, key = ("embeddings.StoreSource", "path") if is_store(where) else ("sources.ImageFolderSource", "root")
    elif ending in FORMATS:
        target, key = "sources.ManifestSource", "path"
    elif ending in (".npz", ".npy"):
        target, key = "sources.ArraysSource", "path"
    else:
        known = ", ".join(_options("data"))
        raise ConfigError(
            f"{place}: '{path}' is no folder, no table ({', '.join(FORMATS)}), no arrays (.npz, .npy), and no data "
            f"config. The data configs are: {known}."
        )
    source: Source = build({"_target_": f"guardtrain.{target}", key: path, **rest}, place)
    return source


def _of_config(
    name: str | None,
    config: str,
    part: str | None,
    changes: Mapping[str, Any],
    read: Reader,
    settings: BenchmarkSettings,
) -> list[DataSet]:
    """The test sets of a data config, or the part of it that is asked for."""
    data = _composed(config, changes, settings)
    nodes = {"real": data.real, "pairs": data.pairs}
    stem = name or config
    if part in nodes:
        if nodes[part] is None:
            raise ConfigError(f"The data config '{config}' has no pool '{part}'.")
        source = read(build(nodes[part], f"data.{part}"), part)
        return [DataSet(stem, source, origin=config, pool=True)]
    wanted = list(data.test) if part is None else [part]
    if unknown := [test for test in wanted if test not in data.test]:
        there = ", ".join([*data.test, *(pool for pool, node in nodes.items() if node is not None)])
        raise ConfigError(f"The data config '{config}' has no part '{unknown[0]}'; it has: {there}.")
    if not wanted:
        raise ConfigError(f"The data config '{config}' has no test sets; say {config}:real for all of its images.")
    held = [test for test in wanted if "hold_out" in data.test[test]]
    ids, sources = _held_out(data, read) if held else ({}, {})
    out = []
    for test in wanted:
        called = stem if len(wanted) == 1 else f"{stem}/{test}"
        if test in held:
            out.append(DataSet(called, sources[data.test[test]["hold_out"]], ids[test], config))
        else:
            source = read(build(data.test[test], f"data.test.{test}"), "test", test)
            out.append(DataSet(called, source, origin=config))
    return out


def _composed(config: str, changes: Mapping[str, Any], settings: BenchmarkSettings) -> DataSettings:
    """A data config with changes, as `train` and `curve` would see it."""
    overrides = [f"data={config}", f"data_dir='{settings.data_dir}'"]
    with hydra_opened():
        whole = compose("audit", overrides)
    OmegaConf.set_struct(whole, False)
    merged = OmegaConf.merge(whole, {"data": dict(changes)})
    assert isinstance(merged, DictConfig)
    return typed(merged, AuditConfig).data


def _held_out(data: DataSettings, read: Reader) -> tuple[dict[str, tuple[str, ...]], dict[str, Source]]:
    """Ids of the test sets held out of pools, drawn as `train` and `curve` draw them; and the sources of the pools."""
    from guardtrain.training.pools import pools_of_records

    nodes = {"real": data.real, **({} if data.pairs is None else {"pairs": data.pairs})}
    sources = {pool: read(build(node, f"data.{pool}"), pool) for pool, node in nodes.items()}
    tests = {
        name: hold_out(node, f"data.test.{name}", sources) for name, node in data.test.items() if "hold_out" in node
    }
    pools = {name: source.records() for name, source in sources.items()}
    made = pools_of_records(data.name, pools, tests, seed=data.hold_out_seed)
    return {name: tuple(str(one) for one in part.records.ids) for name, part in made.tests.items()}, sources


def _made_by(encoder: str, place: str) -> EncoderSpec:
    import yaml

    from guardtrain.encoders.resolve import resolve_spec

    options = {path.stem: path for path in option_files("encoder")}
    if encoder not in options:
        raise ConfigError(f"{place}.made_by is '{encoder}'; it is one of {', '.join(options)}.")
    node = yaml.safe_load(options[encoder].read_text(encoding="utf-8"))
    merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(EncoderSettings), node))
    assert isinstance(merged, EncoderSettings)
    return resolve_spec(merged)


def _options(group: str) -> list[str]:
    if GlobalHydra.instance().is_initialized():
        return list(GlobalHydra.instance().config_loader().get_group_options(group))
    return [path.stem for path in option_files(group)]


def _stem(path: str) -> str:
    """Return a file's or folder's name for tables; its folder's where its own says nothing (`records.csv`)."""
    where = Path(path).expanduser().resolve()
    stem = where.parent.name if where.stem.lower() in _NAMELESS and where.parent.name else where.stem
    return re.sub(r"[^\w.-]+", "-", stem).strip("-") or "data"


def contenders(settings: BenchmarkSettings) -> list[Contender]:
    """The guards that `settings.guards` names.

    Raises:
        ConfigError: no guards, settings that there are not, or of guards that there are not.
        GuardError: see `Guard.load`.
    """
    given = settings.guards if isinstance(settings.guards, list | tuple) else [settings.guards]
    if not given and not settings.vlm.model:
        raise ConfigError(
            "Name at least one guard: guards=[DIR, org/name, …], yours first; or a vision-language model, "
            "vlm=openai_compatible vlm.model=NAME vlm.base_url=URL."
        )
    found = [_contender(one, settings) for one in given]
    if settings.vlm.model:
        from guardtrain.benchmarks.vision_language_contender import asked_contender

        found.append(asked_contender(settings.vlm, Path(settings.cache_dir).expanduser()))
    names = [one.entrant.name for one in found]
    for at, one in enumerate(found):  # two guards of one name are told apart by their folders
        if names.count(one.entrant.name) > 1:
            found[at] = replace(one, entrant=replace(one.entrant, name=f"{one.entrant.name} ({_folder_of(one)})"))
    names = [one.entrant.name for one in found]
    if double := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"Two guards are called '{double[0]}': name them, 'guards=[{{path: DIR, name: mine}}, …]'.")
    for setting in ("categories", "points"):
        _refuse_unknown(getattr(settings, setting) or {}, names, setting)
    if isinstance(settings.in_distribution, Mapping):
        _refuse_unknown(settings.in_distribution, names, "in_distribution")
    if settings.compare_with is not None and settings.compare_with not in names:
        raise ConfigError(f"compare_with is '{settings.compare_with}'; the guards are {', '.join(names)}.")
    return found


def _folder_of(contender: Contender) -> str:
    path: Path | None = getattr(contender.guard, "path", None)  # a model that is asked has none
    return path.name if path is not None else "asked"


def _refuse_unknown(given: Mapping[str, Any], names: list[str], setting: str) -> None:
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(f"{setting} names '{unknown[0]}'; the guards are {', '.join(names)}.")


def _contender(what: Any, settings: BenchmarkSettings) -> Contender:
    from guardtrain.benchmarks.alignment import declared_categories
    from guardtrain.benchmarks.effectiveness import Entrant
    from guardtrain.guards.guard import Guard

    if isinstance(what, Mapping) and "scores" in what:
        return _scored(what, settings)
    node = {"path": what} if isinstance(what, str) else dict(what) if isinstance(what, Mapping) else {}
    allowed = ("path", "name", "categories", "point", "revision", "checkpoint")
    if "path" not in node or any(key not in allowed for key in node):
        raise ConfigError(f"A guard is a path, or a mapping of {', '.join(allowed)}; this one is {what!r}.")
    guard = Guard.load(
        str(node["path"]), revision=node.get("revision"), trusted_heads=[*_OWN_HEADS, *settings.trusted_heads]
    )
    name = str(node.get("name") or guard.name)
    categories = node.get("categories", (settings.categories or {}).get(name))
    wanted = declared_categories(guard.about) if categories is None else tuple(map(str, _listed(categories)))
    point = str(node.get("point") or (settings.points or {}).get(name) or guard.default_point)
    guard.points[point]  # refused now
    published = bool(guard.about.get("imported"))
    trained = None if published else (guard.about.get("training") or {}).get("data")
    said = settings.checkpoint
    checkpoint = node.get("checkpoint") or (said.get(guard.spec.label) if isinstance(said, Mapping) else said)
    entrant = Entrant(name, wanted, published, trained)
    return Contender(guard, entrant, point, checkpoint and str(checkpoint), categories is not None)


def _scored(what: Mapping[Any, Any], settings: BenchmarkSettings) -> Contender:
    from guardtrain.benchmarks.scored_contender import scored_contender

    allowed = ("scores", "name", "categories")
    if any(key not in allowed for key in what):
        raise ConfigError(f"Scores of a guard are a mapping of {', '.join(allowed)}; this one is {dict(what)!r}.")
    path = str(what["scores"])
    name = str(what.get("name") or _stem(path))
    categories = what.get("categories", (settings.categories or {}).get(name))
    wanted = () if categories is None else tuple(map(str, _listed(categories)))
    return scored_contender(path, name, wanted, categories is not None)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def embedder(settings: BenchmarkSettings, say: Any) -> Any:
    """How a data set's source is embedded by a guard's encoder: from the cache, from the source, or computed now."""
    from guardtrain.embeddings import embed
    from guardtrain.encoders.resolve import resolve_spec
    from guardtrain.encoders.spec import settings_for
    from guardtrain.errors import EncoderError

    cache = Path(settings.cache_dir).expanduser()

    def embedded(contender: Contender, data: DataSet) -> Embeddings:
        guard, source = contender.guard, data.source
        if data.spec is not None:
            found = embed(source, None, cache, label=data.name)
            return found if data.made_by is None else replace(found, spec=data.made_by)
        encoder: EncoderSettings | EncoderSpec = guard.spec
        try:
            wanted = settings_for(
                guard.spec, checkpoint=contender.checkpoint, batch_size=settings.batch_size, device=settings.device
            )
            if guard.spec.dtype == "float32":
                wanted = replace(wanted, dtype="auto")
            if resolve_spec(wanted, memo=cache / "specs").fingerprint == guard.spec.fingerprint:
                encoder = wanted
        except EncoderError:
            pass  # its weights are not here; a store of these images may be
        say(f"{data.name}: embeddings of {guard.spec.label}")
        try:
            found = embed(source, encoder, cache, label=f"{data.name}")
        except EncoderError as error:
            place = f"checkpoint=FILE, or 'checkpoint={{{guard.spec.label}: FILE}}'"
            raise EncoderError(
                f"{error}\n  Weights of the encoder that a guard names are given here as {place}."
            ) from error
        if data.ids is not None and len(found) < len(source.records()):
            raise DataError(
                f"{len(source.records()) - len(found)} images of '{data.name}' cannot be read, so what is held out "
                "for tests would be drawn otherwise than in training. Mend or remove them, or name another part of "
                "the data."
            )
        return found

    return embedded
