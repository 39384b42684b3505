"""From grid to results: mixtures, banks of heads, test scores and rows, appended as they are finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guardtrain.curves.folder import ENGINE_VERSION, RESULTS_FILE, SCORES_FOLDER, VALIDATION_FOLDER
from guardtrain.curves.grid import GridPoint, GridSettings, supplied
from guardtrain.curves.results import NO_CONTROL, ResultRow, ResultsTable, run_key
from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.curves.validation import ValidationScores
from guardtrain.errors import DataError, MixtureError
from guardtrain.heads import HeadBank
from guardtrain.metrics import record_pairs, record_slices
from guardtrain.mixtures import ARMS, Mixer, Mixture, Pool
from guardtrain.training.batches import RunPlan
from guardtrain.training.fit import fit_bank
from guardtrain.training.fitted import FittedBank
from guardtrain.training.pools import DrawnRows, Pools
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.selection import at_edge

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

FIRST_COMMIT = 60  # runs trained before anything is kept; after them so many as make up so much work:
BLOCK_WORK = 2e11  # what a crash can cost: about 20 s on two cores, see `_work`
SECONDS_PER_COMMIT = 20.0  # the same of heads that are solved, whose work is not known beforehand
_EVALUATIONS = 600  # what L-BFGS takes to an optimum, in steps on as many images
_FOLD_SHARE = 0.1  # of that for a linear head of a fold: it starts near its optimum and stops far from it

FALSE_POSITIVE_RATE = 0.05
_TEST_ROWS = 32_768  # scored at once: a multiple of what a head scores at once, so the numbers are the same
_SHOWN = 5  # runs set aside that are named before "and N more"
_COLUMNS = {"recall_at_fpr": "recall_at_fpr5"}  # the table says which rate


@dataclass(frozen=True)
class Run:
    """One run of the grid, with its mixture and its resume key."""

    point: GridPoint
    mixture: Mixture
    key: str


def plan_runs(pools: Pools, grid: GridSettings, recipe_settings: Mapping[str, Any], mixer: Mixer) -> list[Run]:
    """Every run of the grid that there are images for, with its mixture.

    The resume key covers the data's digest, the mixture, and all of `recipe_settings` that changes the numbers.

    Raises:
        MixtureError: counts that do not work out, or a grid of which nothing fits.
    """
    points, lacking = supplied(grid, mixer.supply)
    if not points:
        raise MixtureError(next(iter(lacking.values())))
    return [_planned(pools, point, grid.rounding, recipe_settings, mixer) for point in points]


def plan_single(pools: Pools, mixture: Mapping[str, Any], recipe_settings: Mapping[str, Any]) -> Run:
    """The one run of `guardtrain train`; its key is that of the same run in a curve."""
    settings = dict(mixture)
    rounding = settings.pop("rounding")
    if settings["ratio"] == 0:
        settings |= {"arm": ARMS[0], "control": NO_CONTROL}
    return _planned(pools, GridPoint(**settings), rounding, recipe_settings, make_mixer(pools))


def _planned(pools: Pools, point: GridPoint, rounding: str, recipe_settings: Mapping[str, Any], mixer: Mixer) -> Run:
    mixture = point.mixture(mixer, rounding)
    selection = recipe_settings.get("selection", {})
    few = "folds" in selection and mixture.n_images >= selection["smallest"]
    few = few and not mixer.has_usual_folds(mixture, selection["folds"])
    settings = {
        "engine": ENGINE_VERSION,
        "data": pools.digest,
        **asdict(point),
        "n_real": mixture.n_real,
        "n_pair_images": mixture.n_pair_images,
        **recipe_settings,
        **({"folds": "few groups"} if few else {}),
    }
    return Run(point, mixture, run_key(settings))


def run_curve(
    pools: Pools,
    recipe: TrainingRecipe,
    recipe_settings: Mapping[str, Any],
    grid: GridSettings,
    folder: Path,
    *,
    memory_gb: float = 2.0,
    loggers: Sequence[Logger] = (),
    say: Callable[[str], None] = print,
) -> set[str]:
    """Train what is missing of the grid, score it on every test set, and append results and scores to `folder`.

    A curve that was killed, at whatever moment, and started again has the numbers of one that was not, to the last bit:
    a head's last digits depend on its company in a bank, so runs are trained in blocks that the grid alone decides.

    Args:
        pools: pools and test sets.
        recipe: how heads are trained.
        recipe_settings: the recipe as plain data, for the resume key.
        grid: the runs.
        folder: gets `results.parquet`, `scores/` and, for who picks a run, `validation/`.
        memory_gb: most memory a bank may take.
        loggers: Lightning loggers of the training losses.
        say: tells the user what is done.

    Returns:
        The keys of the grid's runs, without those set aside because their heads are not finite; rows of other runs in
        the table stay as they are.
    """
    mixer = make_mixer(pools)
    runs = plan_runs(pools, grid, recipe_settings, mixer)
    table = ResultsTable(folder / RESULTS_FILE)
    scores = ScoresFolder(folder / SCORES_FOLDER)
    validation = ValidationScores(folder / VALIDATION_FOLDER, pools)
    for test, part in pools.tests.items():
        scores.write_test_records(test, part.records)
    done = table.done(pools.tests)
    missing = [run for run in runs if run.key not in done]
    if len(missing) < len(runs):
        say(f"{len(runs) - len(missing)} of {len(runs)} runs are there already")
    drawn = pools.drawn(run.mixture for run in missing)
    embeddings, labels = torch.from_numpy(drawn.matrix), torch.from_numpy(drawn.labels)
    finished, size = 0, FIRST_COMMIT
    block_of = {} if recipe.direct else _blocks(runs, recipe, embeddings.shape[1])
    set_aside: list[Run] = []
    while finished < len(missing):
        rest = missing[finished:]
        batch = [run for run in rest if block_of[run.key] == block_of[rest[0].key]] if block_of else rest[:size]
        plans = [run_plan(pools, mixer, run.mixture, recipe, drawn) for run in batch]
        title = f"training {finished + len(batch)} of {len(missing)} runs"
        checkpoints = folder / "checkpoints" / _banked(batch, recipe, memory_gb)
        fitted = fit_bank(
            recipe, embeddings, labels, plans, memory_gb=memory_gb, folder=checkpoints, loggers=loggers, label=title
        )
        scored = score_tests(fitted, pools)
        kept = np.flatnonzero(~fitted.failed)
        set_aside += [run for run, failed in zip(batch, fitted.failed, strict=True) if failed]
        # scores first: a row in the table promises that its scores are there
        keys = [batch[r].key for r in kept]
        validation.write(keys, fitted, kept)
        scores.write(keys, {test: values[kept] for test, values in scored.items()})
        table.append(_rows(batch, fitted, scored, pools, recipe.label))
        shutil.rmtree(checkpoints, ignore_errors=True)
        finished += len(batch)
        size = max(1, int(len(batch) * SECONDS_PER_COMMIT / max(fitted.seconds, 1e-3)))
        say(f"{finished} of {len(missing)} runs trained ({fitted.seconds:.1f} s for the last {len(batch)})")
    if edge := _edge(table, runs, recipe):
        say(edge)
    if set_aside:
        shown = "; ".join(_worded(run.point) for run in set_aside[:_SHOWN])
        more = f"; and {len(set_aside) - _SHOWN} more" if len(set_aside) > _SHOWN else ""
        say(
            f"{len(set_aside)} of {len(runs)} runs are set aside, their heads are not finite: {shown}{more}. Look for "
            "NaN in the embeddings of their images, lower optimizer.lr or raise loss.l2. The next start tries again."
        )
    return {run.key for run in runs} - {run.key for run in set_aside}


def _edge(table: ResultsTable, runs: Sequence[Run], recipe: TrainingRecipe) -> str:
    """A sentence where many runs chose a penalty at an edge of what they chose from."""
    chose = {run.key for run in runs if recipe.chooses(run.mixture.n_images)}
    if not chose:
        return ""
    frame = table.read().drop_duplicates("run")
    return at_edge(frame.loc[frame["run"].isin(chose), "l2"].tolist(), recipe.selection.l2)


def _blocks(runs: Sequence[Run], recipe: TrainingRecipe, dim: int) -> dict[str, int]:
    """The block of each run, by key: `FIRST_COMMIT` runs, then as many as make up `BLOCK_WORK`."""
    work_of = partial(_work, recipe=recipe, one=recipe.head.bank(1, dim))
    block_of: dict[str, int] = {}
    block, work = 0, 0.0
    for number, run in enumerate(runs):
        own = work_of(run.mixture.n_images)
        if number == FIRST_COMMIT or (number > FIRST_COMMIT and work + own > BLOCK_WORK):
            block, work = block + 1, 0.0
        block_of[run.key] = block
        work += own
    return block_of


def _work(images: int, recipe: TrainingRecipe, one: HeadBank) -> float:
    """Return the work of training on so many images: parameters × images × steps, with folds and candidates.

    Args:
        one: an untrained bank of one head.
    """
    settings, selection = recipe.optimizer, recipe.selection
    steps, rows = (_EVALUATIONS, images) if recipe.full_batch else (settings.steps, min(images, settings.batch_size))
    parameters = sum(p.numel() for p in one.parameters()) + one.parameters_per_image * images
    heads = 1.0
    if recipe.chooses(images):
        candidates = max(1, len(selection.l2)) * (1 if recipe.full_batch else max(1, len(selection.lr)))
        heads += selection.folds * candidates * (_FOLD_SHARE if recipe.linear_optimum else 1)
    return parameters * rows * steps * heads


def _banked(batch: Sequence[Run], recipe: TrainingRecipe, memory_gb: float) -> str:
    """A name for the banks of these runs: checkpoints are of them, and fit no others."""
    every = recipe.trainer.checkpoint_every
    return run_key({"runs": [run.key for run in batch], "checkpoint_every": every, "memory_gb": memory_gb})


def train_run(
    pools: Pools,
    recipe: TrainingRecipe,
    run: Run,
    *,
    memory_gb: float,
    checkpoints: Path,
    loggers: Sequence[Logger] = (),
) -> tuple[FittedBank, list[ResultRow]]:
    """Train one run (a bank of one), with checkpoints to resume from; the fitted bank and its rows of the table.

    Raises:
        DataError: its head is not finite.
    """
    drawn = pools.drawn([run.mixture])
    embeddings, labels = torch.from_numpy(drawn.matrix), torch.from_numpy(drawn.labels)
    plan = run_plan(pools, make_mixer(pools), run.mixture, recipe, drawn)
    fitted = fit_bank(recipe, embeddings, labels, [plan], memory_gb=memory_gb, folder=checkpoints, loggers=loggers)
    if fitted.failed.any():
        raise DataError(
            f"The head of this run ({_worded(run.point)}) is not finite. Look for NaN in the embeddings of its images, "
            "lower optimizer.lr or raise loss.l2."
        )
    return fitted, list(_rows([run], fitted, score_tests(fitted, pools), pools, recipe.label))


def _worded(point: GridPoint) -> str:
    """A run in words: "seed 0, budget 64, ratio 0.5 paired (replace)"."""
    return f"seed {point.seed}, budget {point.budget}, {point.images}"


def make_mixer(pools: Pools) -> Mixer:
    """The mixer of the pools."""
    pairs = None if pools.pairs is None else Pool.from_records(pools.pairs.records, name="pairs")
    return Mixer(Pool.from_records(pools.real.records, name="real"), pairs)


def run_plan(
    pools: Pools, mixer: Mixer, mixture: Mixture, recipe: TrainingRecipe, drawn: DrawnRows | None = None
) -> RunPlan:
    """A mixture's images and pairs as rows of the pools' matrix (or of `drawn`'s), with folds where the run chooses
    hyper-parameters.

    A run whose scarcer class has fewer groups than `selection.folds` has as many folds as these; with one group it has
    none, and chooses nothing. See `Mixer.folds`.
    """
    folds = mixer.folds(mixture, recipe.selection.folds) if recipe.chooses(mixture.n_images) else None
    rows, pairs = pools.rows(mixture), pools.pair_rows(mixture, folds)
    if drawn is not None:
        rows, pairs = drawn.places(rows), drawn.places(pairs)
    return RunPlan(rows, mixture.seed, folds=folds, split=mixture.n_real, pairs=pairs)


def score_tests(fitted: FittedBank, pools: Pools) -> dict[str, Scores]:
    """The scores of R heads on the N images of each test set, a block at a time where it lies in a store.

    NaN for heads that failed.
    """
    scored = {}
    for test, part in pools.tests.items():
        blocks = (part.matrix[start : start + _TEST_ROWS] for start in range(0, len(part), _TEST_ROWS))
        logits = [fitted.logits(torch.from_numpy(np.array(block, dtype=np.float32))).numpy() for block in blocks]
        scored[test] = Scores.of_logits(np.concatenate(logits, axis=1))
    return scored


def metric_column(metric: str) -> str:
    """Return what the results table calls a metric of `guardtrain.metrics`."""
    return _COLUMNS.get(metric, metric)


def _rows(
    runs: Sequence[Run], fitted: FittedBank, scored: Mapping[str, Scores], pools: Pools, head: str
) -> Iterator[ResultRow]:
    encoder = pools.spec.fingerprint
    for test, part in pools.tests.items():
        records = part.records
        safe, unsafe = record_pairs(records)
        slices = record_slices(records)
        kept = np.flatnonzero(~fitted.failed).tolist()
        metrics = scored[test][kept].sliced_metrics(records.labels, (safe, unsafe), slices, fpr=FALSE_POSITIVE_RATE)
        for (kind, name), values in metrics.items():
            mask = slices[kind, name]
            n_pairs = int((mask[safe] & mask[unsafe]).sum())
            for place, r in enumerate(kept):
                run = runs[r]
                yield ResultRow(
                    run=run.key,
                    head=head,
                    arm=run.point.arm,
                    control=run.point.control,
                    budget=run.point.budget,
                    ratio=run.point.ratio,
                    n_real=run.mixture.n_real,
                    n_pair_images=run.mixture.n_pair_images,
                    n_images=run.mixture.n_images,
                    seed=run.point.seed,
                    test=test,
                    slice_kind=kind,
                    slice=name,
                    n_test=int(mask.sum()),
                    n_unsafe=int(records.labels[mask].sum()),
                    n_pairs=n_pairs,
                    lr=float(fitted.lr[r]),
                    l2=float(fitted.l2[r]),
                    steps=int(fitted.steps[r]),
                    seconds=fitted.seconds / len(runs),
                    encoder=encoder,
                    data=pools.name,
                    **{metric_column(metric): float(column[place]) for metric, column in values.items()},
                )
