"""The samples of tars as rows: members read by offset from files, and from spooled copies of streams."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.file_names import open_on_disk, path_on_disk
from guardtrain.sources.decoding import endings
from guardtrain.sources.endings import ending_of, kinds_text
from guardtrain.sources.images import is_url
from guardtrain.sources.json_tables import values_column
from guardtrain.sources.parquet_rows import stems
from guardtrain.sources.paths import brace_expand, file_key, files_named
from guardtrain.sources.sidecars import with_sidecars
from guardtrain.sources.spool import PIPE, Spool, Spooled, compression
from guardtrain.sources.stacking import stacked
from guardtrain.sources.tar_index import FIELDS, IndexFolder, TarIndex, read_index
from guardtrain.words import listed, near

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ONLY_IMAGE = "image"  # stands for the one image member of a sample, whatever its suffix


class TarRows:
    """See `WebDatasetSource`, whose settings these are.

    Args:
        wanted: suffixes of the image members; empty where each sample has one image, whatever its suffix.
        labelled: the label is named elsewhere, so `cls` is not taken for it.
    """

    hint = ""

    def __init__(
        self,
        path: str,
        wanted: tuple[str, ...],
        *,
        sidecar: bool,
        index_dir: str | None,
        spooled: int,
        labelled: bool,
        origin: str,
    ) -> None:
        self._origin = origin
        self._spool = Spool(spooled, None)
        self._folder = IndexFolder(index_dir)
        self._tars = brace_expand(path) if path.startswith(PIPE) else files_named(path, _SUFFIXES, "tars")
        self._streamed = [tar.startswith(PIPE) or _compressed(tar) for tar in self._tars]
        indices = self._indices()
        self._tar_keys = [index.key for index in indices]
        self.key = "\n".join(self._tar_keys)
        self.image_columns = wanted or (ONLY_IMAGE,)
        samples = self._find_images(indices, wanted)
        names = _names(self._tars)
        self.ids = [f"{names[t]}/{key}" for t, key in zip(self._tar_of, samples["key"].to_pylist(), strict=True)]
        columns = samples.drop_columns(["key"])
        if sidecar and not path.startswith(PIPE):
            columns = with_sidecars(columns, samples["key"].to_pylist(), self._tar_of, self._tars)
        if not labelled and "label" not in columns.column_names and "cls" in columns.column_names:
            columns = columns.append_column("label", columns["cls"])
        self.table = columns

    def cell(self, row: int, column: str) -> bytes | str | None:
        """See `ImageRows`."""
        places = self._places[column]
        return self._read(int(self._tar_of[row]), int(places["offset"][row]), int(places["size"][row]))

    def uri(self, row: int, column: str) -> str | None:
        """`tar://MEMBER::TAR`, which fsspec opens; None where the tar is a stream."""
        tar = int(self._tar_of[row])
        return None if self._streamed[tar] else f"tar://{self._places[column]['name'][row]}::{self._tars[tar]}"

    def _read(self, tar: int, offset: int, size: int) -> bytes:
        name = self._tars[tar]
        if self._streamed[tar]:
            spooled = self._stream(tar)  # held until it is read: it is closed when nobody holds it
            content = os.pread(spooled.file.fileno(), size, offset)
        elif is_url(name):
            import fsspec

            system, inner = fsspec.core.url_to_fs(name)
            content = bytes(system.cat_file(inner, start=offset, end=offset + size))
        else:
            descriptor = os.open(path_on_disk(name), os.O_RDONLY)
            try:
                content = os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        if len(content) != size:
            raise OSError(f"{name} ends before byte {offset + size:,}: it has been cut short since it was indexed.")
        return content

    def _stream(self, tar: int) -> Spooled:
        name = self._tars[tar]
        spooled = self._spool.get(name)
        if name.startswith(PIPE) and _stream_key(name, spooled) != self._tar_keys[tar]:
            raise DataError(
                f"{name} gives another stream than when it was indexed. Delete {self._folder.file(name)} to index it "
                "anew."
            )
        return spooled

    def _indices(self) -> list[TarIndex]:
        """The index of every tar, from disk where the tar has not changed; else made, with a bar on a terminal."""
        from rich.console import Console
        from rich.progress import track

        found: list[TarIndex | None] = []
        file_keys = [None if tar.startswith(PIPE) else file_key(tar, "tars") for tar in self._tars]
        for tar, key in zip(self._tars, file_keys, strict=True):
            found.append(self._folder.load(tar, key))
        missing = [i for i, index in enumerate(found) if index is None]
        console = Console(stderr=True)
        what = f"Indexing {len(missing)} tars"
        for i in track(missing, what, console=console, disable=not console.is_terminal or not missing, transient=True):
            found[i] = index = self._index(i, file_keys[i])
            self._folder.save(self._tars[i], index)
        return [index for index in found if index is not None]

    def _index(self, i: int, key: str | None) -> TarIndex:
        name = self._tars[i]
        if self._streamed[i]:
            spooled = self._spool.get(name)
            spooled.file.seek(0)
            return read_index(spooled.file, key or _stream_key(name, spooled), name)
        try:
            with _opened(name) as file:
                return read_index(file, key or "", name)
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error}") from error

    def _find_images(self, indices: list[TarIndex], wanted: tuple[str, ...]) -> pa.Table:
        """`key` and the columns of the samples that have their images; where these lie is noted on the way."""
        tables, tar_of, without, imageless = [], [], Counter[str](), set[str]()
        seen: dict[str, None] = {}
        places: dict[str, list[tuple[int, int, str]]] = {name: [] for name in self.image_columns}
        for t, index in enumerate(indices):
            _refuse_torn_apart(index, self._tars[t])
            rows: list[int] = []
            for s, members in enumerate(index.samples["members"].to_pylist()):
                images = {m["suffix"]: m for m in members if ending_of(f"x.{m['suffix']}") in endings()}
                images |= {m["suffix"]: m for m in members if m["suffix"] in wanted}
                seen |= dict.fromkeys(images)
                if not images or not all(name in images for name in wanted):
                    others = (ending_of(f"x.{m['suffix']}") or f".{m['suffix']}" for m in members)
                    without[next(others, "of json, cls and txt alone")] += 1
                    imageless.add(index.samples["key"][s].as_py())
                    continue
                self.hint = self.hint or _dotted(index.samples["key"][s].as_py(), (m["suffix"] for m in members))
                if not wanted and len(images) > 1:
                    key = index.samples["key"][s].as_py()
                    raise DataError(
                        f"The sample {key} of {self._tars[t]} has several images ({listed(images)}): say which with "
                        "columns={image: SUFFIX}, or, if they are a pair, with pairs={safe: SUFFIX, unsafe: SUFFIX}."
                        + _dotted(key, images)
                    )
                chosen = [images[name] for name in wanted] or list(images.values())
                for name, member in zip(self.image_columns, chosen, strict=True):
                    places[name].append((member["offset"], member["size"], member["name"]))
                rows.append(s)
            tables.append(_columns(index.samples.take(pa.array(rows, pa.int64()))))
            tar_of.append(np.full(len(rows), t))
        self._tar_of = np.concatenate(tar_of)
        self._places = {name: _arrays(found) for name, found in places.items()}
        if not len(self._tar_of):
            looked = f"members {listed(wanted)}" if wanted else f"images ({' '.join(sorted(endings()))})"
            hint = "".join(near(name, seen) for name in wanted)
            found = f"Image members end in: {listed(seen)}." if seen else f"There are: {kinds_text(without)}."
            raise DataError(f"{self._origin} hold no samples with {looked}.{hint} {found}")
        samples = stacked(tables)
        if number := without.total():
            what = f"{number:,} sample lacks" if number == 1 else f"{number:,} samples lack"
            which = f"one of the members {listed(wanted)}" if wanted else "an image that can be decoded"
            print(
                f"{self._origin}: {what} {which} and {'is' if number == 1 else 'are'} left out; found there: "
                f"{kinds_text(without)}.{_other_folders(samples['key'].to_pylist(), imageless)}",
                file=sys.stderr,
                flush=True,
            )
        return samples


def _refuse_torn_apart(index: TarIndex, tar: str) -> None:
    """Raise where a sample's members are not neighbours: to webdataset each place is a sample of its own, and whether
    they belong together nobody knows."""
    keys = index.samples["key"].to_pylist()
    if len(set(keys)) == len(keys):
        return
    torn = [key for key, places in Counter(keys).items() if places > 1]
    file = shlex.quote(tar)
    raise DataError(
        f"In {tar} the members of {len(torn):,} samples are not neighbours, such as those of {listed(torn, 2)}: the "
        "members of a sample stand one after another. If they belong together, write the tar in the order of names:\n"
        f"  mkdir sorted && tar -xf {file} -C sorted && (cd sorted && tar --sort=name -cf ../sorted.tar *)"
    )


def _other_folders(with_images: Sequence[str], without: set[str]) -> str:
    """Note that samples of one name in two folders are two, where there are such."""
    by_name = {key.rpartition("/")[2]: key for key in with_images}
    beside = next((key for key in sorted(without) if key.rpartition("/")[2] in by_name), None)
    if beside is None:
        return ""
    return (
        f" '{beside}' and '{by_name[beside.rpartition('/')[2]]}' are two samples, for they lie in two folders: write "
        "the tar anew with all members of a sample in one."
    )


def _dotted(key: str, images: Iterable[str]) -> str:
    """Say what to do where a name has a dot of its own: `22.05.png` is the member `05.png` of the sample `22`."""
    odd = next((name for name in images if re.match(r"\d+\.", name)), None)
    if odd is None:
        return ""
    return (
        f" In tars a name ends at its first dot: '{key}.{odd}' is the member '{odd}' of the sample '{key}'. If each is "
        "a sample of its own, write the tar anew without dots in the names."
    )


def _arrays(places: list[tuple[int, int, str]]) -> dict[str, Any]:
    offsets, sizes, names = zip(*places, strict=True) if places else ((), (), ())
    return {
        "offset": np.array(offsets, dtype=np.int64),
        "size": np.array(sizes, dtype=np.int64),
        "name": pa.array(names, pa.string()),
    }


def _columns(samples: pa.Table) -> pa.Table:
    """`key`, and the columns that the samples' own members give."""
    rows = []
    for texts in samples.select(list(FIELDS)).to_pylist():
        row = _of_json(texts["json"])
        rows.append(row | {name: texts[name].strip() for name in ("cls", "txt") if texts[name] is not None})
    names = dict.fromkeys(name for row in rows for name in row if name != "key")
    columns = {name: values_column([_plain(row.get(name)) for row in rows]) for name in names}
    return pa.table({"key": samples["key"], **columns})


def _of_json(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return {"json": text}
    return value if isinstance(value, dict) else {"json": text}


def _plain(value: Any) -> Any:
    """Keep what is nested in JSON as JSON text: other samples may nest otherwise."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def _stream_key(name: str, spooled: Spooled) -> str:
    return f"{name}|{spooled.size}|{spooled.digest}"


def _names(tars: list[str]) -> list[str]:
    """A short name for each tar: of a pipe the tar that its command names, where that tells them apart."""
    if not tars[0].startswith(PIPE):
        return stems([re.sub(r"\.(tar(\.(gz|bz2|xz))?|tgz)$", ".tar", tar) for tar in tars])
    found = [re.findall(r"([^\s/'\"]+)\.(?:tar|tgz)\b", tar) for tar in tars]
    names = [texts[0] if texts else "" for texts in found]
    return names if all(names) and len(set(names)) == len(names) else [f"{i:05d}" for i in range(len(tars))]


def _opened(name: str) -> IO[bytes]:
    if not is_url(name):
        return open_on_disk(name)
    import fsspec

    return fsspec.open(name, "rb").open()  # type: ignore[no-any-return]


def _compressed(name: str) -> bool:
    try:
        with _opened(name) as file:
            return compression(file) is not None
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{name} cannot be read: {error}") from error
