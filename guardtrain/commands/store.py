"""`guardtrain store ACTION`: look at stores of embeddings, verify, append to, merge, filter and deduplicate them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from guardtrain.commands.data import read_labels, setting_of
from guardtrain.commands.registry import ACTIONS
from guardtrain.commands.terminal import show
from guardtrain.config import StoreConfig
from guardtrain.config_checks import build, typed
from guardtrain.errors import ConfigError, StoreError, did_you_mean
from guardtrain.sources.unclear import settings_told

if TYPE_CHECKING:
    import numpy as np

    from guardtrain.embeddings import EmbeddingStore
    from guardtrain.embeddings.verify import Verification

TABLE_SUFFIX = ".parquet"
_MOST_LISTED = 40  # shards a table shows; of more, the damaged ones alone

# The settings of each action: those it needs, then those it may be given.
_USES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "info": (("path",), ()),
    "verify": (("path",), ("repair",)),
    "append": (("path", "source"), ("disputed", "checkpoint", "batch_size", "device")),
    "merge": (("paths", "out"), ("duplicates", "disputed")),
    "filter": (("path", "out"), ("where", "split", "ids", "halves")),
    "dedup": (("path", "out"), ("disputed",)),
}

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Do what `config` (see `StoreConfig`) describes."""
    settings = typed(config, StoreConfig)
    _check(settings)
    {"info": _info, "verify": _verify, "append": _append, "merge": _merge, "filter": _filter, "dedup": _dedup}[
        settings.action
    ](settings)


def _check(settings: StoreConfig) -> None:
    """Refuse an action that is not there, and settings that it needs and lacks or that mean nothing to it."""
    action, actions = settings.action, ACTIONS["store"]
    if action not in actions:
        hint = did_you_mean(action, actions)
        raise ConfigError(f"There is no action '{action}'.{hint} Allowed: {', '.join(actions)}.")
    needed, allowed = _USES[action]
    for name in needed:
        if not getattr(settings, name):
            given = "source=manifest source.path=PATH" if name == "source" else f"{name}=…"
            raise ConfigError(f"`store {action}` needs {name}: give {given}.")
    plain = StoreConfig()
    for field in fields(settings):
        name = field.name
        if name not in ("action", "data_dir", *needed, *allowed) and getattr(settings, name) != getattr(plain, name):
            raise ConfigError(f"`store {action}` has no setting '{name}'. Allowed: {', '.join([*needed, *allowed])}.")


def _opened(settings: StoreConfig) -> EmbeddingStore:
    from guardtrain.embeddings import EmbeddingStore

    assert settings.path is not None
    return EmbeddingStore.open(settings.path)


def _info(settings: StoreConfig) -> None:
    show(info_text(_opened(settings)))


def info_text(store: EmbeddingStore) -> str:
    """Describe a store, a line a fact."""
    import pyarrow.compute as pc

    from guardtrain.embeddings.quarantine import QUARANTINE_FILE

    table = store.metadata()
    size = sum(file.stat().st_size for shard in store.shards for file in (shard.matrix, shard.metadata))
    kind = store.matrix().dtype
    lines = [
        f"{store.path}",
        f"  embeddings  {len(store):,} x {store.dim} {kind} in {len(store.shards):,} shards, {size / 1e6:,.1f} MB",
        f"  encoder     {store.spec.label} ({store.spec.family}), fingerprint {store.spec.fingerprint[:12]}",
    ]
    for name in ("label", "split", "source", "category"):
        if name in table.column_names and table[name].null_count < len(table):
            counts = sorted(pc.value_counts(table[name]).to_pylist(), key=lambda c: -c["counts"])
            shown = [f"{'none' if c['values'] is None else c['values']} {c['counts']:,}" for c in counts[:8]]
            more = f", {len(counts) - 8} more" if len(counts) > 8 else ""
            lines.append(f"  {name:<10}  {', '.join(shown)}{more}")
    if "pair_id" in table.column_names and (pairs := pc.count_distinct(table["pair_id"]).as_py()):
        lines.append(f"  pairs       {pairs:,}")
    if set_aside := len(store.set_aside(table)):
        lines.append(f"  set aside   {set_aside:,}, see {store.path / QUARANTINE_FILE}")
    lines.append(f"  columns     {', '.join(table.column_names)}")
    return "\n".join(lines)


def _verify(settings: StoreConfig) -> None:
    from guardtrain.embeddings.verify import remove_damaged, verify_store

    assert settings.path is not None
    with _bar("Verifying", None) as advance:
        found = verify_store(settings.path, advance)
    show(verification_text(found))
    if found.ok:
        return
    damaged = found.damaged
    text = f"{found.path} is damaged: {len(damaged)} of {len(found.shards)} shards"
    text += f", and {'; '.join(found.problems)}." if found.problems else "."
    if not damaged:
        raise StoreError(f"{found.path} is damaged: {'; '.join(found.problems)}.")
    again = {
        "extraction": "run the `guardtrain embed` that made it again: it makes these shards anew",
        "list": "make them again: `guardtrain embed` those that it embedded, else `guardtrain store append` (or merge "
        "or filter, into a new folder) with what they were made of",
        "others": "copy these files from where they are whole",
    }[found.made_by]
    if settings.repair:
        for file in remove_damaged(found):
            log.info("deleted   %s", file)
        raise StoreError(f"{text} The damaged ones are deleted; now {again}.")
    names = " ".join(str(file) for shard in damaged for file in (shard.matrix, shard.metadata) if file.exists())
    remove = "" if found.made_by == "others" or not names else f" Delete {names} (repair=true does), then"
    raise StoreError(f"{text}{remove or ' Now'} {again}.")


def verification_text(found: Verification) -> str:
    """A row a shard (of many, only the damaged ones), then what is wrong with the whole, and what was not checked."""
    shards = found.shards if len(found.shards) <= _MOST_LISTED else found.damaged
    rows = sum(shard.rows or 0 for shard in found.shards)
    encoder = "an encoder that is not known" if found.spec is None else found.spec.label
    lines = [f"{found.path}: {rows:,} embeddings in {len(found.shards):,} shards, of {encoder}"]
    lines.append(f"  {'shard':>6}  {'rows':>9}  {'dim':>5}  {'type':<8}  found")
    for shard in shards:
        cells = [("–" if v is None else v) for v in (shard.rows, shard.dim, shard.dtype)]
        count = f"{cells[0]:,}" if isinstance(cells[0], int) else cells[0]
        state = "; ".join(shard.problems) or ("whole" if shard.summed else "whole (no checksums)")
        lines.append(f"  {shard.number:>6}  {count:>9}  {cells[1]:>5}  {cells[2]:<8}  {state}")
    if len(shards) < len(found.shards):
        rest = f"{len(found.shards) - len(shards):,} others" if shards else f"All {len(found.shards):,}"
        lines.append(f"  {rest} are whole.")
    lines += [f"  wrong: {problem}" for problem in found.problems]
    lines += [f"  note: {note}" for note in found.notes]
    return "\n".join(lines)


def _append(settings: StoreConfig) -> None:
    from guardtrain.embeddings.append import append_records
    from guardtrain.encoders.spec import LOADABLE, settings_for

    store = _opened(settings)
    source = build(settings.source, "source")
    encoder = None
    if store.spec.family in LOADABLE:
        encoder = settings_for(
            store.spec, checkpoint=settings.checkpoint, batch_size=settings.batch_size, device=settings.device
        )
    read_labels(source, "source", log.info)
    with settings_told(setting_of("source")):
        grown = append_records(store.path, source, encoder=encoder, disputed=settings.disputed, say=log.info)
    log.info("%s: %s embeddings, %s of them new", store.path, f"{len(grown):,}", f"{len(grown) - len(store):,}")


def _merge(settings: StoreConfig) -> None:
    from guardtrain.embeddings.merge import merge_stores

    assert settings.out is not None
    with _bar("Merging", None) as advance:
        merged = merge_stores(
            settings.paths,
            settings.out,
            duplicates=settings.duplicates,
            disputed=settings.disputed,
            advance=advance,
            say=log.info,
        )
    log.info("%s: %s embeddings of %d stores", settings.out, f"{len(merged):,}", len(settings.paths))


def _filter(settings: StoreConfig) -> None:
    from guardtrain.embeddings.selection import matching_rows, read_ids

    if not isinstance(settings.where, dict | None):
        raise ConfigError(f"where must be a mapping, such as 'where={{category: fire}}'; it is {settings.where!r}.")
    if not settings.where and settings.split is None and settings.ids is None:
        raise ConfigError("`store filter` needs something to keep rows by: where={COLUMN: VALUE}, split=… or ids=FILE.")
    store = _opened(settings)
    ids = None if settings.ids is None else read_ids(settings.ids)
    rows = matching_rows(store, where=settings.where, split=settings.split, ids=ids, halves=settings.halves)
    _keep(settings, store, rows, "filter")


def _dedup(settings: StoreConfig) -> None:
    from guardtrain.embeddings.selection import distinct_rows
    from guardtrain.words import listed

    store = _opened(settings)
    found = distinct_rows(store, settings.disputed)
    ways = [f"{found.by_file:,} by the sha256 of their files"] if found.by_file else []
    ways += [f"{found.by_embedding:,} by their embeddings{' alone' if ways else ''}"] if found.by_embedding else []
    count = found.by_file + found.by_embedding
    how = f": {', '.join(ways)}" if ways else ""
    log.info("%s of %s images are there before%s", f"{count:,}", f"{len(store):,}", how)
    if found.paired:
        log.info("%s more stay, as halves of pairs", f"{found.paired:,}")
    if found.disputed:
        shown = listed([" and ".join(f"{name} ({label})" for name, label in each) for each in found.disputed], 3)
        log.info("%s are there with two labels (disputed=%s): %s", f"{len(found.disputed):,}", settings.disputed, shown)
    _keep(settings, store, found.rows, "dedup")


def _keep(settings: StoreConfig, store: EmbeddingStore, rows: np.ndarray, what: str) -> None:
    """Write the rows as a record table or a store, whichever `out` is."""
    from guardtrain.embeddings.build import build_store
    from guardtrain.embeddings.selection import write_record_table

    assert settings.out is not None
    if settings.out.endswith(TABLE_SUFFIX):
        write_record_table(store, rows, Path(settings.out))
    else:
        with _bar("Writing", len(rows)) as advance:
            build_store(settings.out, [store], rows, what, advance)
    log.info("%s: %s of %s rows of %s", settings.out, f"{len(rows):,}", f"{len(store):,}", store.path)


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
