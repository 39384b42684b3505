"""Per-image scores that others published become a curve of ours: rows of the results table, and a scores folder.

Two designs are read. *Seeds*: every run scored the same test images, as our own runs do. *Folds*: every run of a method
at a budget scored other images, and together they scored each image once (cross-validation). Then a fold stands in the
column `seed`; it was trained on other images *and* tested on other images, so what varies from fold to fold holds both,
and a t interval over folds covers both. It is still somewhat too narrow: any two of k folds share (k-2)/(k-1) of the
images they draw their training from, and no estimate from one round of cross-validation can know what that hides
(Bengio and Grandvalet, "No unbiased estimator of the variance of K-fold cross-validation", JMLR 5, 2004).
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from guardtrain.curves.folder import RESULTS_FILE, SCORES_FOLDER, keep_keys
from guardtrain.curves.repeats import DESIGNS, POOLED, published_encoder
from guardtrain.curves.results import METRICS, NO_CONTROL, ResultRow, ResultsTable, run_key
from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.curves.statistics import CONFIDENCE, check_metric, one_baseline, summarise
from guardtrain.errors import ConfigError, DataError
from guardtrain.mixtures import ARMS
from guardtrain.records import CELLS, Records
from guardtrain.sources.labels import read_labels

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.bootstrap import PointReplicates

SCALES = ("probability", "logit")
NEEDED = ("budget", "seed", "label", "score")
COLUMNS = ("run", "head", *NEEDED, "id", "category", "source", "pair_id", "group")
POOLED_FOLDER = "pooled"  # in a curve's folder: the curve of all folds at once
_Run = tuple[str, np.ndarray, np.ndarray, dict[str, Any]]  # key, images, their scores, and head, budget and seed
_OF_IMAGES = ("label", "category", "source", "pair_id", "group")


@dataclass
class PublishedSettings:
    """Where published scores lie, and what their columns are called: one row an image and run ("long" form).

    Args:
        name: what results and plots call this data, and the test set.
        path: `.npz` (each column an array of that name), `.csv`, `.tsv`, `.jsonl` or `.parquet`.
        columns: ours -> theirs, of run, head, budget, seed, id, label, score, category, source, pair_id, group.
            `head` (the method), `budget` (training images), `seed` (seed or fold), `label` and `score` are needed;
            instead of `head`, `run` (a configuration) with `head_pattern`. Null is "not there".
        run_names: an array in the .npz that the numbers in `run` point into.
        head_pattern: a regular expression whose first group, found in the run's name, is the method.
        heads: method as found -> how to call it; where it is not empty, methods it does not name are left out.
        labels: their label -> 0 (safe) or 1 (unsafe); by default as in `ManifestSource`.
        scale: `probability`, in [0, 1], or `logit`.
        design: `seeds` (each run scored the same images) or `folds` (runs share out the images between them).
        same_image: where there is no id: columns that, with label and fold, tell which image a row is; images that
            are alike in all of them are matched in the order of the file.
    """

    name: str = "published"
    path: str = "???"
    columns: dict[str, str | None] = field(default_factory=dict)
    run_names: str | None = None
    head_pattern: str | None = None
    heads: dict[str, str] = field(default_factory=dict)
    labels: dict[Any, int] = field(default_factory=dict)  # of text, but YAML has numbers for some keys
    scale: str = "probability"
    design: str = "seeds"
    same_image: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, allowed in (("design", DESIGNS), ("scale", SCALES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"published.{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}.")
        for ours in self.columns:
            if ours not in COLUMNS:
                raise ConfigError(f"published.columns names '{ours}'; allowed: {', '.join(COLUMNS)}.")
        if self.head_pattern is not None:
            try:
                groups = re.compile(self.head_pattern).groups
            except re.error as error:
                raise ConfigError(f"published.head_pattern is no regular expression: {error}.") from None
            if not groups:
                raise ConfigError("published.head_pattern needs a group in parentheses: what it finds is the method.")


@dataclass(frozen=True)
class Published:
    """Published scores, checked: every run of a design scored what it should have.

    Args:
        name: of the data and the test set.
        design: folds or seeds.
        rows: one row an image and run: `head` (str), `budget`, `seed` (int), `image` (row of `records`), `score`
            (float, probability of unsafe); sorted by these.
        records: the test images; with folds a further column `fold`.
        heads: methods in the order they are shown.
        told_apart: how many images can be told apart from all others; the rest were matched in the order of the file.
    """

    name: str
    design: str
    rows: pd.DataFrame
    records: Records
    heads: tuple[str, ...]
    told_apart: int

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of everything read, a part of the run keys."""
        h = hashlib.sha256(self.records.digest().encode())
        for name in ("budget", "seed", "image", "score"):
            h.update(np.ascontiguousarray(self.rows[name].to_numpy()).tobytes())
        h.update("\0".join(self.rows["head"]).encode())
        h.update(self.records.labels.tobytes())
        for name in ("category", "source", "pair_id", "group"):  # what decides slices and the metrics of pairs
            values = self.records.column(name).tolist()
            if any(value is not None for value in values):
                h.update(json.dumps([name, values]).encode())
        return h.hexdigest()


def read_published(settings: PublishedSettings) -> Published:
    """Read and check published scores.

    Raises:
        DataError: no such file or column (with those there are), values that are no budgets, seeds, labels or scores,
            an image that a run scored twice or that has two labels, or runs that do not fit the design.
    """
    import pandas as pd

    origin = f"the scores {settings.path}"
    arrays = _arrays(settings)
    frame = pd.DataFrame({name: _column(arrays, name, settings, origin) for name in NEEDED})
    frame["head"] = _heads(arrays, settings, origin)
    called = str(settings.columns["label"])
    read = read_labels(arrays.column(called), settings.labels, origin, called, where=False)
    frame["label"] = read.labels.to_numpy(zero_copy_only=False).astype(np.int8)
    frame["cell"] = read.cells.to_pandas()
    for name in ("budget", "seed"):
        frame[name] = _whole(frame[name].to_numpy(), name, origin, least=1 if name == "budget" else 0)
    frame["score"] = _probabilities(frame["score"].to_numpy(), settings.scale, origin)
    for name in ("id", "category", "source", "pair_id", "group"):
        if settings.columns.get(name):
            cells = _column(arrays, name, settings, origin)
            texts = [None if pd.isna(cell) else str(cell) for cell in cells]  # pandas has NaN where a table has nothing
            frame[name] = pd.Series(texts, dtype=object)
    for name in settings.same_image:
        frame[f"same {name}"] = _array(arrays, name, f"same_image of {origin}", origin)
    if settings.heads:
        if unknown := [head for head in settings.heads if head not in set(frame["head"])]:
            known = ", ".join(sorted(set(frame["head"])))
            raise DataError(f"published.heads names '{unknown[0]}', and {origin} have no such method: {known}.")
        frame = frame[frame["head"].isin(list(settings.heads))]
        frame["head"] = frame["head"].map(settings.heads)
    frame, told_apart = _with_images(frame.reset_index(drop=True), settings, origin)
    records, frame = _records(frame, settings, origin)
    _check_design(frame, settings.design, len(records), origin)
    rows = frame[["head", "budget", "seed", "image", "score"]].sort_values(["head", "budget", "seed", "image"])
    heads = tuple(dict.fromkeys(settings.heads.values())) or tuple(sorted(set(rows["head"])))
    return Published(settings.name, settings.design, rows.reset_index(drop=True), records, heads, told_apart)


def write_published(published: Published, folder: Path) -> tuple[list[str], list[str]]:
    """Append a curve's rows and scores to the `results.parquet` and `scores/` of `folder`.

    With seeds, each run is a row with its scores. With folds, each fold is a row in `folder`, without scores, as there
    is no image that all of them scored; all folds of a method at a budget together are one run (seed 0) of a second
    curve in `folder/pooled`, with its scores. Its test records say which fold an image was in, so the scores of a fold
    are a part of them. What is there already is left.

    Returns:
        Keys of the runs that make the curve (the folds, or the seeds), and of the pooled ones.

    Raises:
        DataError: `folder` holds results of other images under this name.
    """
    folds = published.design == "folds"
    single: list[_Run] = []
    whole: list[_Run] = []
    place = {head: number for number, head in enumerate(published.heads)}
    for _, own in published.rows.groupby([published.rows["head"].map(place), "budget"], sort=True):
        point: dict[str, Any] = {"head": str(own["head"].iloc[0]), "budget": int(own["budget"].iloc[0])}
        for _, run in own.groupby("seed", sort=True):
            about = point | {"seed": int(run["seed"].iloc[0])}
            key = run_key({"published": published.name, "digest": published.digest, **about})
            single.append((key, run["image"].to_numpy(), run["score"].to_numpy(), about))
        ordered = own.sort_values("image")
        key = run_key({"published": published.name, "digest": published.digest, **point, "seed": "all"})
        whole.append((key, ordered["image"].to_numpy(), ordered["score"].to_numpy(), point | {"seed": 0}))
    if not folds:
        return _write(single, published, folder, with_scores=True), []
    pooled = _write(whole, published, folder / POOLED_FOLDER, with_scores=True)  # refused before anything is written
    return _write(single, published, folder, with_scores=False), pooled


def _write(runs: Sequence[_Run], published: Published, folder: Path, with_scores: bool) -> list[str]:
    """Append what is not there yet, scores before rows; returns all keys, which are noted as the folder's curve."""
    table = ResultsTable(folder / RESULTS_FILE)
    if with_scores:
        ScoresFolder(folder / SCORES_FOLDER).write_test_records(published.name, published.records)
    done = table.done()
    missing = [run for run in runs if run[0] not in done]
    if missing and with_scores:
        values = {published.name: Scores.of_probabilities(np.stack([scores for _, _, scores, _ in missing]))}
        ScoresFolder(folder / SCORES_FOLDER).write([key for key, *_ in missing], values)
    design = POOLED if with_scores and published.design == "folds" else published.design
    table.append(_result_rows(missing, published, design))
    keys = [key for key, *_ in runs]
    keep_keys(folder, keys)
    return keys


def seed_replicates(
    frame: pd.DataFrame,
    test: str,
    metric: str,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> PointReplicates:
    """The points of a curve, resampled over the values in the table's column `seed` alone, without any scores.

    Where seeds are folds this covers training and test images, as each fold has its own of both; where they are draws
    of the training images on one test set, `guardtrain.curves.bootstrap.bootstrap_points` covers the test images, too.

    Args:
        frame: a results table; of the slices, `all` is taken.
        test, metric: name of a test set, and any of `guardtrain.curves.results.METRICS`.
        replicates, seed, confidence: as there; the same draw of seeds stands at every point.

    Raises:
        DataError: an unknown test set or metric, or points that mix experiments.
    """
    from guardtrain.curves.bootstrap import PointReplicates

    check_metric(frame, metric)
    rows = one_baseline(frame[(frame["test"] == test) & (frame["slice_kind"] == "all")])
    rows = rows[rows[metric].notna()]
    if rows.empty:
        raise DataError(f"The results have no {METRICS[metric]} on a test set '{test}'.")
    summarise(rows, metric)  # refuses mixed experiments
    values = rows[metric].to_numpy(float)[:, None]
    rng = np.random.default_rng(seed)
    return PointReplicates.over(rows, values, test, metric, replicates, rng, confidence)


def _result_rows(entries: Sequence[_Run], published: Published, design: str) -> list[ResultRow]:
    """Rows of runs; those that scored the same images are measured together."""
    from guardtrain.metrics import record_pairs, record_slices

    nothing: dict[str, Any] = {"lr": np.nan, "l2": np.nan, "steps": 0, "seconds": 0.0}  # nobody told us
    by_images: dict[bytes, list[int]] = {}
    for i, (_, images, _, _) in enumerate(entries):
        by_images.setdefault(images.tobytes(), []).append(i)
    rows = []
    for members in by_images.values():
        images = entries[members[0]][1]
        records = published.records.take(images)
        labels, pairs = records.labels, record_pairs(records)
        slices = record_slices(records)
        scores = Scores.of_probabilities(np.stack([entries[i][2] for i in members]))
        metrics = scores.sliced_metrics(labels, pairs, slices)
        halves = [half.numpy() for half in pairs]
        for (kind, name), values in metrics.items():
            mask = slices[kind, name]
            sizes: dict[str, Any] = {"n_test": int(mask.sum()), "n_unsafe": int(labels[mask].sum())}
            sizes["n_pairs"] = int((mask[halves[0]] & mask[halves[1]]).sum())
            for place, i in enumerate(members):
                key, _, _, about = entries[i]
                measured: dict[str, Any] = {
                    ("recall_at_fpr5" if metric == "recall_at_fpr" else metric): float(value[place])
                    for metric, value in values.items()
                }
                budget = about["budget"]
                rows.append(
                    ResultRow(
                        run=key,
                        arm=ARMS[0],
                        control=NO_CONTROL,
                        ratio=0.0,
                        n_real=budget,
                        n_pair_images=0,
                        n_images=budget,
                        test=published.name,
                        slice_kind=kind,
                        slice=name,
                        **about,
                        **sizes,
                        **measured,
                        **nothing,
                        encoder=published_encoder(design, published.name),
                        data=published.name,
                    )
                )
    return rows


class _Columns(dict[str, np.ndarray]):
    """The file's columns by name; `column` gives one as Arrow has it, which knows more of it."""

    def __init__(self, arrays: Mapping[str, np.ndarray], table: pa.Table | None = None) -> None:
        super().__init__(arrays)
        self._table = table

    def column(self, name: str) -> pa.Array | pa.ChunkedArray:
        return pa.array(self[name].tolist()) if self._table is None else self._table[name]


def _arrays(settings: PublishedSettings) -> _Columns:
    """The file's columns; nothing pickled is loaded."""
    from guardtrain.sources.tables import read_table

    if not settings.path.lower().endswith(".npz"):
        named = [settings.columns.get(name) for name in ("run", "head", "id", "pair_id", "group")]
        table = read_table(settings.path, [name for name in named if name])
        return _Columns({name: table[name].to_pandas().to_numpy() for name in table.column_names}, table)
    try:
        with np.load(Path(settings.path).expanduser(), allow_pickle=False) as file:
            return _Columns({name: file[name] for name in file.files})
    except FileNotFoundError:
        raise DataError(f"There are no scores at {settings.path}.") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"The scores {settings.path} cannot be read: {str(error).splitlines()[0]}") from None


def _array(arrays: Mapping[str, Any], name: str, place: str, origin: str) -> Any:
    from guardtrain.words import listed, near

    if name not in arrays:
        raise DataError(f"There is no column '{name}' (for {place}).{near(name, arrays)} Found: {listed(arrays, 30)}.")
    return arrays[name]


def _column(arrays: Mapping[str, Any], ours: str, settings: PublishedSettings, origin: str) -> Any:
    theirs = settings.columns.get(ours)
    if not theirs:
        raise DataError(f"published.columns.{ours} is not given; it must name a column of {origin}.")
    values = _array(arrays, theirs, f"{ours} of {origin}", origin)
    wanted = len(_array(arrays, settings.columns.get("score") or theirs, f"score of {origin}", origin))
    if np.ndim(values) != 1 or len(values) != wanted:
        raise DataError(
            f"Column '{theirs}' (for {ours}) of {origin} has shape {np.shape(values)}; the scores have ({wanted},)."
        )
    return values


def _heads(arrays: Mapping[str, Any], settings: PublishedSettings, origin: str) -> np.ndarray:
    """(N,) the method of each row."""
    if settings.columns.get("head"):
        return np.array([str(v) for v in _column(arrays, "head", settings, origin)], dtype=object)
    if not settings.columns.get("run"):
        raise DataError(f"published.columns needs head (the method) or run (a configuration) of {origin}.")
    values, index = np.unique(np.asarray(_column(arrays, "run", settings, origin)), return_inverse=True)
    names = [str(v) for v in values]
    if settings.run_names is not None:
        table = _array(arrays, settings.run_names, "run_names", origin)
        if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() >= len(table):
            raise DataError(f"Column 'run' of {origin} must be numbers below {len(table)}, to point into run_names.")
        names = [str(table[int(v)]) for v in values]
    if settings.head_pattern is not None:
        found = [re.search(settings.head_pattern, name) for name in names]
        for name, match in zip(names, found, strict=True):
            if match is None:
                raise DataError(f"published.head_pattern '{settings.head_pattern}' finds nothing in the run '{name}'.")
        names = [match[1] for match in found if match is not None]
    return np.array(names, dtype=object)[index.reshape(-1)]


def _whole(values: np.ndarray, name: str, origin: str, least: int) -> np.ndarray:
    try:
        numbers = np.asarray(values).astype(np.float64)
    except (ValueError, TypeError):
        numbers = np.full(len(values), np.nan)
    bad = ~(np.isfinite(numbers) & (numbers == np.round(numbers)) & (numbers >= least))
    if bad.any():
        raise DataError(
            f"Column '{name}' of {origin} must be whole numbers of at least {least}; row {int(np.argmax(bad))} has "
            f"{values[int(np.argmax(bad))]!r}."
        )
    return numbers.astype(np.int64)


def _probabilities(values: np.ndarray, scale: str, origin: str) -> np.ndarray:
    try:
        scores = np.asarray(values).astype(np.float64)
    except (ValueError, TypeError):
        raise DataError(f"Column 'score' of {origin} holds values that are no numbers.") from None
    if np.isnan(scores).any():
        raise DataError(
            f"{int(np.isnan(scores).sum()):,} scores of {origin} are missing, the first in row "
            f"{int(np.argmax(np.isnan(scores)))}: leave those images out of every run."
        )
    if scale == "logit":
        from scipy.special import expit

        return np.asarray(expit(scores))
    if scores.min() < 0 or scores.max() > 1:
        raise DataError(
            f"Scores of {origin} lie in [{scores.min():g}, {scores.max():g}], and probabilities in [0, 1]. "
            "Are they logits? Then say published.scale=logit."
        )
    return scores


def _with_images(frame: pd.DataFrame, settings: PublishedSettings, origin: str) -> tuple[pd.DataFrame, int]:
    """`frame` with ids where there are none; and how many images can be told apart from all others."""
    run = ["head", "budget", "seed"]
    if "id" in frame:
        if frame["id"].isna().any():
            raise DataError(f"Column 'id' of {origin} is empty in row {int(frame['id'].isna().argmax())}.")
        twice = frame.duplicated([*run, "id"])
        if twice.any():
            row = frame[twice].iloc[0]
            raise DataError(
                f"In {origin} the run '{row['head']}' at budget {row['budget']}, seed {row['seed']}, scored image "
                f"'{row['id']}' twice."
            )
        return frame, int(frame["id"].nunique())
    same = [f"same {name}" for name in settings.same_image]
    kind = [*(["seed"] if settings.design == "folds" else []), *(["label", *same] if same else [])]
    number = frame.groupby([*run, *kind] if same else run, sort=False, observed=True).cumcount()
    frame["id"] = ["/".join(map(str, row)) for row in zip(*(frame[name] for name in kind), number, strict=True)]
    if not same:
        return frame, 0
    one_run = frame.groupby(run[:2] if settings.design == "folds" else run, sort=False).ngroup() == 0
    sizes = frame[one_run].groupby(kind, sort=False, observed=True).size()
    return frame, int((sizes == 1).sum())


def _records(frame: pd.DataFrame, settings: PublishedSettings, origin: str) -> tuple[Records, pd.DataFrame]:
    """The images, in the order of their ids, and `frame` with their rows in a column `image`."""
    columns = [name for name in _OF_IMAGES if name in frame]
    if settings.design == "folds":
        columns = [*columns, "seed"]
    several = frame[["id", *columns]].drop_duplicates()
    if (double := several.duplicated("id")).any():
        name = str(several.loc[double, "id"].iloc[0])
        own = several[several["id"] == name]
        vary = next(column for column in columns if len(own[column].unique()) > 1)
        values = ", ".join(map(str, own[vary].tolist()[:4]))
        what = "is in several folds" if vary == "seed" else f"has several values of {vary}"
        raise DataError(f"Image '{name}' of {origin} {what} ({values}); it needs one.")
    images = several.sort_values("id").reset_index(drop=True)
    more: dict[str, Any] = {name: images[name].tolist() for name in columns if name != "seed"}
    if settings.design == "folds":
        more["fold"] = images["seed"].tolist()
    place = {name: row for row, name in enumerate(images["id"])}
    more[CELLS] = frame.drop_duplicates("id").set_index("id")["cell"].loc[images["id"]].tolist()
    records = Records.from_table(pa.table({"id": images["id"].tolist(), **more}), origin=origin)
    return records, frame.assign(image=frame["id"].map(place))


def _check_design(frame: pd.DataFrame, design: str, images: int, origin: str) -> None:
    """Every run has scored every image (seeds), or the runs of a point every image between them (folds)."""
    by = ["head", "budget"] if design == "folds" else ["head", "budget", "seed"]
    counts = frame.groupby(by, sort=True)["image"].agg(["nunique", "size"])
    wrong = counts[(counts["nunique"] != images) | (counts["size"] != images)]
    if wrong.empty:
        return
    first = ", ".join(f"{name} {value}" for name, value in zip(by, wrong.index[0], strict=True))
    got = wrong.iloc[0]
    whose = "the folds of" if design == "folds" else "the run"
    other = "seeds" if design == "folds" else "folds"
    raise DataError(
        f"With design={design} {whose} {first} should have scored each of the {images:,} images of {origin} once; "
        f"there are {got['size']:,} scores of {got['nunique']:,} images. Is it design={other}, or are rows missing?"
    )
