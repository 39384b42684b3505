"""Test scores kept beside the results table, so that every statistic can be computed again."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from guardtrain.errors import DataError
from guardtrain.files import replace_file
from guardtrain.records import Records

if TYPE_CHECKING:
    from guardtrain.metrics.checks import Pairs

_LOGITS, _PROBABILITIES = "logits", "scores"  # what the arrays of a part are called
_PART = re.compile(r"part-(\d{6})\.npz")


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of R heads on N images. Only logits rank what is sure: probabilities in float32 are 1 from 17 on.

    Args:
        ranked: (R, N) float, a head's logits or its probabilities of being unsafe.
        logits: (R,) bool, whose are logits.

    >>> Scores.of_logits(np.array([[-20.0, 20.0]])).probabilities.round(6).tolist()
    [[0.0, 1.0]]
    """

    ranked: np.ndarray
    logits: np.ndarray

    @classmethod
    def of_logits(cls, values: np.ndarray) -> Scores:
        """Scores of heads whose logits `(R, N)` are known."""
        return cls(values, np.ones(len(values), dtype=bool))

    @classmethod
    def of_probabilities(cls, values: np.ndarray) -> Scores:
        """Scores of heads whose probabilities `(R, N)` alone are known: hard answers, or what others published."""
        return cls(values, np.zeros(len(values), dtype=bool))

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """The heads of several scores of the same images."""
        return cls(np.concatenate([p.ranked for p in parts]), np.concatenate([p.logits for p in parts]))

    def __len__(self) -> int:
        return len(self.ranked)

    def __getitem__(self, heads: Any) -> Scores:
        """Return the scores of some heads: a slice, numbers or a mask."""
        return Scores(self.ranked[heads], self.logits[heads])

    @property
    def probabilities(self) -> np.ndarray:
        """(R, N) of being unsafe, of the type of `ranked`."""
        from scipy.special import expit

        return np.where(self.logits[:, None], expit(self.ranked), self.ranked)

    @property
    def log_odds(self) -> np.ndarray:
        """(R, N) float64 logits; where only probabilities are known, of these clipped as `pair_margin` does it."""
        from scipy.special import logit

        from guardtrain.metrics.functional import MARGIN_CLIP

        values = self.ranked.astype(np.float64)
        return np.where(self.logits[:, None], values, logit(values.clip(MARGIN_CLIP, 1 - MARGIN_CLIP)))

    def sliced_metrics(
        self,
        labels: np.ndarray,
        pairs: Pairs | None,
        slices: Mapping[tuple[str, str], np.ndarray],
        **options: float,
    ) -> dict[tuple[str, str], dict[str, np.ndarray]]:
        """`guardtrain.metrics.sliced_guard_metrics` of these scores, by logits where they are known.

        Args:
            labels: (N,) 0 safe, 1 unsafe.
            pairs, slices: as there.
            options: `threshold` and `fpr`.

        Returns:
            for each slice every metric, (R,) float64.
        """
        import torch

        from guardtrain.metrics import sliced_guard_metrics

        out: dict[tuple[str, str], dict[str, np.ndarray]] = {key: {} for key in slices}
        for known in np.unique(self.logits) if len(self) else [True]:  # of no heads the metrics have names, too
            own = np.flatnonzero(self.logits == known)
            part = self[own]
            logits = torch.from_numpy(part.ranked) if known else None
            probs, truth = torch.from_numpy(part.probabilities), torch.from_numpy(labels.astype(np.int64))
            for key, found in sliced_guard_metrics(probs, truth, pairs, slices, logits=logits, **options).items():
                for name, column in found.items():
                    out[key].setdefault(name, np.full(len(self), np.nan))[own] = column.numpy()
        return out


class ScoresFolder:
    """A folder of test scores: `test-<name>.parquet` record tables and numbered `part-000000.npz` files.

    Args:
        path: the folder; it need not exist yet.

    A part holds `run_keys` (R,), `tests` (T,), `digests` (T,) of the test records, and `logits_0` … `logits_{T-1}`
    (R, N_t) float32, or `scores_0` … of probabilities where logits are not known; nothing in it is pickled. Parts
    appear whole or not at all, from any number of processes.
    Write a bank's scores before its results rows: what the table calls done then always has its scores.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = FileLock(self.path / ".lock")

    def tests(self) -> list[str]:
        """Names of the test sets whose records are here, sorted."""
        return sorted(unquote(p.name[len("test-") : -len(".parquet")]) for p in self.path.glob("test-*.parquet"))

    def write_test_records(self, test: str, records: Records) -> None:
        """Keep the records the columns of `test`'s scores belong to; image paths are stored absolute.

        Other columns than the ids may change between calls (a corrected label, a folder that moved): scores belong to
        images, so the newest table is kept.

        Raises:
            DataError: `test` is here already with other record ids, or the same in another order.
        """
        images = pa.array([records.image_uri(i) for i in range(len(records))], pa.string())
        table = records.table.set_column(records.table.schema.get_field_index("image"), "image", images)
        path = self._records_path(test)
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if path.exists():
                old = self._records(test)
                if old.digest() != records.digest():
                    raise DataError(_changed(test, self.path, old, records))
                if old.table.equals(table):
                    return
            replace_file(path, lambda temporary: pq.write_table(table, temporary))

    def write(self, run_keys: Sequence[str] | np.ndarray, scores: Mapping[str, Scores]) -> Path:
        """Add the scores of R runs as one part file.

        Args:
            run_keys: (R,) strings, no two equal.
            scores: for each test set those of the runs, columns in the order of its records; all by logits or all by
                probabilities.

        Returns:
            The part's path.

        Raises:
            DataError: a wrong shape, logits that are not finite, a probability outside [0, 1], a repeated run key, or a
                test set without records.
        """
        keys = np.asarray([str(k) for k in run_keys], dtype=np.str_)
        if len(np.unique(keys)) != len(keys):
            raise DataError(
                f"Run keys of one part must differ; {len(keys)} were given, {len(np.unique(keys))} distinct."
            )
        arrays: dict[str, np.ndarray] = {"run_keys": keys, "tests": np.asarray(list(scores), dtype=np.str_)}
        digests = []
        for index, (test, values) in enumerate(scores.items()):
            records = self._records(test)
            kind = _LOGITS if values.logits.all() else _PROBABILITIES
            arrays[f"{kind}_{index}"] = _checked(values, test, len(keys), len(records))
            digests.append(records.digest())
        arrays["digests"] = np.asarray(digests, dtype=np.str_)
        with self._lock:
            parts = self._parts()
            number = 1 + int(_PART.fullmatch(parts[-1].name)[1]) if parts else 0  # type: ignore[index]
            path = self.path / f"part-{number:06d}.npz"
            replace_file(path, lambda temporary: _save(temporary, arrays))
        return path

    def read(self, test: str) -> tuple[np.ndarray, Scores, Records]:
        """All scores on `test`, in the order they were written; of a run key written twice, the first counts.

        Returns:
            Run keys (R,) of strings, the scores (R, N) float32, and the N records.

        Raises:
            DataError: no such test set, a damaged part, or a part scored on other records.
        """
        records = self._records(test)
        digest = records.digest()
        keys: list[np.ndarray] = []
        scores = [Scores.of_logits(np.zeros((0, len(records)), dtype=np.float32))]
        for part in self._parts():
            try:
                with np.load(part, allow_pickle=False) as arrays:
                    names = arrays["tests"].tolist()
                    if test not in names:
                        continue
                    index = names.index(test)
                    if str(arrays["digests"][index]) != digest:
                        raise DataError(
                            f"{part} was scored on other records of test set '{test}' than {self._records_path(test)} "
                            "holds; restore that file, or move the part away."
                        )
                    keys.append(arrays["run_keys"])
                    if f"{_LOGITS}_{index}" in arrays:
                        scores.append(Scores.of_logits(arrays[f"{_LOGITS}_{index}"]))
                    else:
                        scores.append(Scores.of_probabilities(arrays[f"{_PROBABILITIES}_{index}"]))
            except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
                raise DataError(f"The scores in {part} cannot be read ({error}); move the file away.") from None
        all_keys = np.concatenate([np.zeros(0, dtype="<U16"), *keys])
        first = np.sort(np.unique(all_keys, return_index=True)[1])
        return all_keys[first], Scores.joined(scores)[first], records

    def _records_path(self, test: str) -> Path:
        return self.path / f"test-{quote(test, safe='')}.parquet"  # a test name may hold a slash

    def _records(self, test: str) -> Records:
        path = self._records_path(test)
        try:
            table = pq.read_table(path)
        except FileNotFoundError:
            known = ", ".join(self.tests()) or "none"
            raise DataError(
                f"{self.path} has no records of test set '{test}' (it has: {known}); call write_test_records first."
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"The test records {path} cannot be read ({str(error).splitlines()[0]}).") from None
        return Records.from_table(table, origin=str(path))

    def _parts(self) -> list[Path]:
        if not self.path.is_dir():
            return []
        return sorted(p for p in self.path.iterdir() if _PART.fullmatch(p.name))


def _checked(scores: Scores, test: str, runs: int, images: int) -> np.ndarray:
    array = np.asarray(scores.ranked, dtype=np.float32)
    if array.shape != (runs, images):
        raise DataError(
            f"Scores on test set '{test}' have shape {array.shape}; needed: {(runs, images)} (runs, test records)."
        )
    if scores.logits.all():
        if not np.isfinite(array).all():
            raise DataError(f"Logits on test set '{test}' must be finite; some are not.")
    elif scores.logits.any() or not ((array >= 0) & (array <= 1)).all():  # False for NaN too
        raise DataError(
            f"Scores on test set '{test}' must be probabilities in [0, 1]; found {np.nanmin(array):g} to "
            f"{np.nanmax(array):g}{' and NaN' if np.isnan(array).any() else ''}. Logits go in as Scores.of_logits."
        )
    return array


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:  # a handle, because savez appends .npz to a name
        np.savez(file, **arrays)  # strings and float32 only: nothing to pickle


def _changed(test: str, folder: Path, old: Records, new: Records) -> str:
    gone = sorted(set(old.ids) - set(new.ids))
    come = sorted(set(new.ids) - set(old.ids))
    what = (
        f"{len(gone)} ids are gone (such as {gone[0] if gone else '–'}), {len(come)} are new "
        f"(such as {come[0] if come else '–'})"
        if gone or come
        else "the ids are the same in another order"
    )
    return (
        f"Test set '{test}' changed since the scores in {folder} were written: {what}. Old scores cannot be compared "
        "with new ones: give the test set another name or start a new results folder."
    )
