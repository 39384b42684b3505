"""From the `data` and `encoder` sections of a config to pools: sources are built, embedded (or read), and checked."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardtrain.config import PRECOMPUTED, AuditConfig, CurveConfig, TrainConfig
from guardtrain.config_checks import build
from guardtrain.errors import ConfigError, DataError, EncoderError
from guardtrain.grammar import setting_text
from guardtrain.sources.settings import HOLD_OUT, DataSettings
from guardtrain.sources.unclear import Line, settings_told

if TYPE_CHECKING:
    from guardtrain.embeddings import Embeddings
    from guardtrain.encoders.spec import EncoderSettings
    from guardtrain.mixtures import Supply
    from guardtrain.records import Records
    from guardtrain.training.pools import HoldOut, Pools


def load_pools(
    settings: AuditConfig | CurveConfig | TrainConfig,
    say: Callable[[str], None],
    check: Callable[[Supply], None] | None = None,
    built: tuple[dict[str, Any], dict[str, Any]] | None = None,
) -> Pools:
    """Pools and test sets of a config.

    Args:
        settings: `data`, `encoder` (family `precomputed` where the sources bring their embeddings), `data_dir`, and
            `cache_dir`, where stores of image sources are kept.
        say: tells the user what is embedded and what was there.
        check: is told, before anything is embedded, how many images there will be to draw from; refuses by raising.
        built: what `sources_of` made of `data`, for who wants the sources as well.

    Raises:
        ConfigError: a source or hold-out that is not described rightly.
        DataError, EncoderError: files that are missing or wrong.
    """
    try:
        audited = isinstance(settings, AuditConfig)  # which looks for copies itself
        made = built or sources_of(settings.data)
        return _load_pools(settings.data, settings.encoder, settings.cache_dir, say, check, audited, *made)
    except (DataError, EncoderError) as error:
        folder = settings.data_dir
        if f"{folder}{os.sep}" in str(error) and not Path(folder).is_dir():
            hint = f"data_dir is '{folder}', and there is no such folder: give data_dir=PATH or set GUARDTRAIN_DATA."
            raise type(error)(f"{error}\n{hint}") from error
        raise


def sources_of(data: DataSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sources of the pools by name (`real`, perhaps `pairs`), and of each test set its source or its `HoldOut`.

    Without pairs there is no test set that is held out of them.

    Raises:
        ConfigError: a source or hold-out that is not described rightly.
    """
    if not data.test:
        raise ConfigError(
            "data.test is empty; name at least one test set: a source, or {hold_out: pairs, fraction: 0.5}."
        )
    sources = {"real": build(data.real, "data.real")}
    if data.pairs is not None:
        sources["pairs"] = build(data.pairs, "data.pairs")
    tests: dict[str, Any] = {}
    for name, node in data.test.items():
        if node is None:
            continue
        place = f"data.test.{name}"
        held_out = isinstance(node, dict) and "hold_out" in node
        if held_out and node["hold_out"] == "pairs" and data.pairs is None:
            continue
        tests[name] = hold_out(node, place, sources) if held_out else build(node, place)
    if not tests:
        raise ConfigError(
            "All test sets of data.test are held out of pairs, and data.pairs is null. Name another: "
            "'data.test={in_domain: {hold_out: real, fraction: 0.3}}'"
        )
    return sources, tests


def read_supply(
    data: DataSettings, sources: Mapping[str, Any], tests: Mapping[str, Any], say: Callable[[str], None]
) -> Supply:
    """How many images there will be to draw from, by the records alone: nothing is embedded.

    Args:
        data: the settings.
        sources, tests: as `sources_of` gives them.
        say: tells the user what of the labels is taken as unsafe.

    Raises:
        DataError: files that are missing or wrong, or a test set that shares records with a pool.
    """
    from guardtrain.training.pools import HoldOut, pools_of_records

    pools = {name: read_labels(source, f"data.{name}", say) for name, source in sources.items()}
    for name in [name for name, node in data.test.items() if node is not None and name not in tests]:
        say(f"data.test.{name} is left out: it is held out of pairs, and there are none")
    sets = {
        name: what if isinstance(what, HoldOut) else read_labels(what, f"data.test.{name}", say)
        for name, what in tests.items()
    }
    return pools_of_records(data.name, pools, sets, seed=data.hold_out_seed).supply


def _load_pools(
    data: DataSettings,
    encoder: EncoderSettings,
    cache_dir: str,
    say: Callable[[str], None],
    check: Callable[[Supply], None] | None,
    keep_copies: bool,
    sources: Mapping[str, Any],
    tests: Mapping[str, Any],
) -> Pools:
    from guardtrain.training.pools import HoldOut, make_pools

    def embedded(place: str, source: Any) -> Embeddings:
        return embed_source(source, place, encoder, cache_dir, say)

    supply = read_supply(data, sources, tests, say)  # all records are read before anything is embedded
    if check is not None:
        check(supply)
    pools = {name: embedded(f"data.{name}", source) for name, source in sources.items()}
    sets = {
        name: what if isinstance(what, HoldOut) else embedded(f"data.test.{name}", what) for name, what in tests.items()
    }
    made = make_pools(data.name, pools, sets, seed=data.hold_out_seed, keep_copies=keep_copies, swapped=data.swapped)
    for line in made.notes:
        say(line)
    return made


def read_labels(source: Any, place: str, say: Callable[[str], None], line: Line | None = None) -> Records:
    """The records of a source, after a line that says what of its labels was taken as unsafe.

    Args:
        source: any.
        place: what the user calls it.
        say: tells the user.
        line: how one of its settings is written on the command line; default: as a setting of `place`.

    Raises:
        DataError: see the source; labels that are not certain, with lines that make them so.
    """
    with settings_told(line or setting_of(place)):
        records: Records = source.records()
    if records.taken is not None:
        say(f"{place}: {len(records):,} labels, {records.taken}")
    return records


def setting_of(place: str) -> Line:
    """How settings of a source at `place` are written on the command line, for a shell."""
    return lambda name, value: shlex.quote(f"{place}.{name}={setting_text(value, spaced=True)}")


def embed_source(
    source: Any,
    place: str,
    encoder: EncoderSettings,
    cache_dir: str,
    say: Callable[[str], None],
    **options: Any,
) -> Embeddings:
    """The embeddings of one source, from the cache, from the source itself, or computed now; options are `embed`'s."""
    from guardtrain.embeddings import embed

    brings = hasattr(source, "embeddings")
    if not brings and encoder.family == PRECOMPUTED:
        raise ConfigError(
            f"{place} is a source of images, and encoder={PRECOMPUTED} embeds none. Choose an encoder, "
            "such as encoder=openai_vit_b32."
        )
    started = time.perf_counter()
    settings = None if encoder.family == PRECOMPUTED else encoder
    with settings_told(setting_of(place)):
        result = embed(source, settings, cache_dir, label=place, **options)
    seconds = time.perf_counter() - started
    say(f"{place}: {len(result):,} records, {result.dim} dimensions ({seconds:.1f} s)")
    return result


def hold_out(node: Mapping[str, Any], place: str, sources: Mapping[str, Any]) -> HoldOut:
    from guardtrain.training.pools import HoldOut

    for key in node:
        if key not in HOLD_OUT:
            raise ConfigError(f"There is no setting '{place}.{key}'. Allowed here: {', '.join(HOLD_OUT)}.")
    given = [key for key in HOLD_OUT[1:] if node.get(key) is not None]
    if len(given) != 1:
        one = f"'{place}={{hold_out: {node['hold_out']}, {(given or ['fraction'])[-1]}: …}}'"
        raise ConfigError(
            f"{place} needs exactly one of groups, fraction, split and categories; it has "
            f"{', '.join(given) or 'none'}. Give all of it: {one}."
        )
    if node["hold_out"] not in sources:
        raise ConfigError(
            f"{place}.hold_out is '{node['hold_out']}'; there is: {', '.join(sources)}. "
            f"Name another pool, or leave this test set out with ~{place}."
        )
    kinds: dict[str, type] = {"groups": int, "fraction": float, "split": str}
    value = node[given[0]]
    if given[0] == "categories":
        names = tuple(str(name) for name in (value if isinstance(value, list) else [value]))
        return HoldOut(node["hold_out"], categories=names)
    kind = kinds[given[0]]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{place}.{given[0]} is {value!r}; it must be of type {kind.__name__}.")
    chosen: dict[str, Any] = {given[0]: value}
    return HoldOut(node["hold_out"], **chosen)
