"""Trials scored: as many as can share a bank are trained as one, each on all of its seeds and folds."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import softplus

from guardtrain.curves.engine import FALSE_POSITIVE_RATE, metric_column, run_plan
from guardtrain.curves.grid import GridPoint
from guardtrain.curves.results import run_key
from guardtrain.curves.tuning.settings import FOLDS, LOG_LOSS
from guardtrain.curves.validation import ValidationScores, unseen
from guardtrain.embeddings import Embeddings
from guardtrain.errors import DataError
from guardtrain.metrics import record_pairs
from guardtrain.metrics.report import guard_metrics
from guardtrain.mixtures import Mixer, Mixture
from guardtrain.training.batches import RunPlan
from guardtrain.training.fit import fit_bank
from guardtrain.training.losses import class_weights
from guardtrain.training.pools import Pools
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.selection import Candidates

FEWEST = 20  # safe and unsafe validation images of a pool, below which a score says little


@dataclass(frozen=True)
class Candidate:
    """The head and recipe that a trial trains.

    Args:
        recipe: head, loss, optimizer, selection (its folds alone), trainer.
        points: its mixtures, one a seed.
        rounding: of the mixtures.
        settings: of the recipe as plain data, see `recipe_settings`.
    """

    recipe: TrainingRecipe
    points: Sequence[GridPoint]
    rounding: str
    settings: Mapping[str, object]

    @property
    def bank(self) -> str:
        """Trials with the same name can be trained as one bank: they differ in nothing that its heads must share."""
        shared = {name: dict(part) if isinstance(part, Mapping) else part for name, part in self.settings.items()}
        loss, optimizer = shared["loss"], shared["optimizer"]
        assert isinstance(loss, dict) and isinstance(optimizer, dict)
        if not self.recipe.direct:
            loss["l2"] = optimizer["lr"] = None
        return run_key(shared)


@dataclass(frozen=True)
class Judged:
    """A candidate's scores.

    Args:
        scores: `(S, K, P)` by seed, fold and pool; NaN where nothing was judged. Without folds K is 1.
        weights: `(S, K, P)` images judged.
        seconds: its share of its bank's.
        reason: why there are none.
    """

    scores: np.ndarray
    weights: np.ndarray
    seconds: float
    reason: str = ""

    @property
    def by_seed(self) -> np.ndarray:
        """`(S,)` the mean over pools of the mean over folds, each fold as heavy as it has images of the pool."""
        weights = np.where(np.isnan(self.scores), 0.0, self.weights)
        total = weights.sum(1)
        by_pool = np.where(total > 0, np.nansum(self.scores * weights, 1) / np.maximum(total, 1), np.nan)
        return _mean(by_pool)

    @property
    def by_fold(self) -> np.ndarray:
        """`(S, K)` the mean over pools."""
        return _mean(self.scores)

    @property
    def score(self) -> float | None:
        """The mean over seeds; None where it failed."""
        own = self.by_seed[~np.isnan(self.by_seed)]
        return None if self.reason else float(own.mean())


def _mean(scores: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(scores)
    return np.where(known.any(-1), np.where(known, scores, 0.0).sum(-1) / np.maximum(known.sum(-1), 1), np.nan)


class Judge:
    """Trains candidates and scores them, on held-out folds of their own images or on images that no trial uses.

    Where there are images of both pools they are judged apart, and the score is the mean of the two: real images may
    tell the label by the context, and would outvote few pairs.

    Args:
        pools: pools; their test sets are not looked at.
        mixer: of the pools.
        score: `folds` or `validation`.
        metric: see `TuneSettings`.
        folds: of the cross-validation.
        used: every mixture that any trial may train on, for `validation`.
        folder: a folder of the search's own.
        memory_gb: most memory of a bank.
    """

    def __init__(
        self,
        pools: Pools,
        mixer: Mixer,
        *,
        score: str,
        metric: str,
        folds: int,
        used: Sequence[Mixture] = (),
        folder: Path,
        memory_gb: float,
    ) -> None:
        self.pools, self.mixer, self.score, self.metric = pools, mixer, score, metric
        self.folds, self.memory_gb = folds, memory_gb
        self.parts = {} if score == FOLDS else _validation_parts(pools, used, folder, metric)

    def judge(self, candidates: Sequence[Candidate], label: str = "trials") -> list[Judged]:
        """The scores of candidates, in their order; those that can are trained as one bank."""
        found: list[Judged | None] = [None] * len(candidates)
        names = [candidate.bank for candidate in candidates]
        groups = [[i for i, own in enumerate(names) if own == name] for name in dict.fromkeys(names)]
        for number, group in enumerate(groups):
            title = label if len(groups) == 1 else f"{label}, bank {number + 1} of {len(groups)}"
            for i, judged in zip(group, self._judge([candidates[i] for i in group], title), strict=True):
                found[i] = judged
        return [judged for judged in found if judged is not None]

    def _judge(self, candidates: Sequence[Candidate], label: str) -> list[Judged]:
        """Candidates of one bank."""
        started = time.perf_counter()
        recipe = candidates[0].recipe
        mixtures = {
            (point, c.rounding): point.mixture(self.mixer, c.rounding) for c in candidates for point in c.points
        }
        drawn = self.pools.drawn(mixtures.values())
        labels = torch.from_numpy(drawn.labels)
        dividing = replace(recipe.selection, method="cross_validation", folds=self.folds, smallest=2)
        whole = {
            key: run_plan(self.pools, self.mixer, mixture, replace(recipe, selection=dividing), drawn)
            for key, mixture in mixtures.items()
        }
        plans: list[RunPlan] = []
        place: list[tuple[int, int, int]] = []  # (candidate, seed, fold) of each head
        lr, l2 = [], []
        for c, candidate in enumerate(candidates):
            for s, point in enumerate(candidate.points):
                plan = whole[point, candidate.rounding]
                for fold, part in self._parts_of(plan, drawn.labels):
                    plans.append(part)
                    place.append((c, s, fold))
                    lr.append(candidate.recipe.optimizer.lr)
                    l2.append(candidate.recipe.loss.strength(len(plan.train)))
        hyper = Candidates(torch.tensor(lr), torch.tensor(l2), torch.full((len(plans),), recipe.steps))
        embeddings = torch.from_numpy(drawn.matrix)
        fitted = fit_bank(
            recipe,
            embeddings,
            labels,
            plans,
            hyper=None if recipe.direct else hyper,
            memory_gb=self.memory_gb,
            label=label,
        )
        pool_of = (drawn.rows >= len(self.pools.real)).astype(np.int64)  # 0 the real pool, 1 the pair pool
        folds, pools = (self.folds, 2) if self.score == FOLDS else (1, len(self.parts))
        shape = (len(candidates), max(len(c.points) for c in candidates), folds, pools)
        scores, weights = np.full(shape, np.nan), np.zeros(shape)
        if self.score == FOLDS:
            logits = fitted.logits(embeddings)
            by_exam: dict[bytes, list[int]] = {}
            for head, plan in enumerate(plans):
                assert plan.held_out is not None
                by_exam.setdefault(plan.held_out.tobytes(), []).append(head)
            for heads in by_exam.values():
                plan = plans[heads[0]]
                c, s, _ = place[heads[0]]
                held_out, pairs = plan.held_out, whole[candidates[c].points[s], candidates[c].rounding].pairs
                assert held_out is not None
                for p in np.unique(pool_of[held_out]).tolist():
                    rows = held_out[pool_of[held_out] == p]
                    own_logits, inside = logits[heads][:, rows], _within(rows, pairs)
                    values = self._measure(own_logits, labels[rows], inside, plan, labels, recipe)
                    for head, value in zip(heads, values, strict=True):
                        scores[(*place[head], p)], weights[(*place[head], p)] = value, len(rows)
        else:
            for p, pool in enumerate(self.parts.values()):
                logits = fitted.logits(torch.from_numpy(np.array(pool.matrix[:], dtype=np.float32)))
                own = torch.from_numpy(pool.records.labels.astype(np.int64))
                for head, plan in enumerate(plans):
                    value = self._measure(logits[[head]], own, record_pairs(pool.records), plan, labels, recipe)
                    scores[(*place[head], p)], weights[(*place[head], p)] = value[0], len(pool)
        failed = np.zeros(len(candidates), dtype=bool)
        for head in np.flatnonzero(fitted.failed).tolist():
            failed[place[head][0]] = True
        seconds = (time.perf_counter() - started) / len(candidates)
        out = []
        for c in range(len(candidates)):
            reason = "a head is not finite" if failed[c] else ""
            if not reason and np.isnan(scores[c]).all():
                reason = f"{self.metric} is not defined on the images that judge it"
            out.append(Judged(scores[c], weights[c], seconds, reason))
        return out

    def _parts_of(self, plan: RunPlan, labels: np.ndarray) -> Iterator[tuple[int, RunPlan]]:
        """The plans to train for a run: one a fold, or the run itself."""
        if self.score != FOLDS:
            yield 0, replace(plan, folds=None)
            return
        if plan.folds is None:
            raise DataError(
                f"The {len(plan.train)} images of seed {plan.seed} cannot be divided into folds: one of their classes "
                "is in a single group. Raise mixture.budget, or score=validation."
            )
        for fold in np.unique(plan.folds):
            inside = plan.folds != fold
            if len(np.unique(labels[plan.train[inside]])) == 2:  # a head cannot learn from one class
                yield int(fold), plan.inside(inside, held_out=True)

    def _measure(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        pairs: tuple[torch.Tensor, torch.Tensor],
        plan: RunPlan,
        all_labels: torch.Tensor,
        recipe: TrainingRecipe,
    ) -> np.ndarray:
        """`(R,)` the metric of heads with logits `(R, m)`; NaN for heads that failed."""
        finite = torch.isfinite(logits).all(1)
        out = np.full(len(logits), np.nan)
        kept = logits[finite]
        if not len(kept):
            return out
        if self.metric == LOG_LOSS:
            # classes weigh as they do in training, so that the score is the loss without its penalty
            weights = class_weights(all_labels[plan.train], recipe.loss.class_weight)[labels].double()
            # of logits: a probability in float32 ends at 1, and a mistake that is sure of itself costs more than that
            losses = softplus(torch.where(labels == 1, -kept, kept).double())
            out[finite.numpy()] = ((losses * weights).sum(1) / weights.sum()).numpy()
        else:
            found = guard_metrics(torch.sigmoid(kept), labels, pairs, logits=kept, fpr=FALSE_POSITIVE_RATE)
            columns = {metric_column(name): column for name, column in found.items()}
            out[finite.numpy()] = columns[self.metric].numpy()
        return out


def _within(rows: np.ndarray, pairs: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs `(k, 2)` (unsafe, safe) that lie in `rows` whole, as places (safe, unsafe) in it."""
    if pairs is None or not len(pairs):
        return (torch.empty(0, dtype=torch.int64),) * 2
    order = np.argsort(rows)
    places = order[np.searchsorted(rows, pairs, sorter=order).clip(max=len(rows) - 1)]
    whole = places[(rows[places] == pairs).all(1)]
    return torch.from_numpy(whole[:, 1]), torch.from_numpy(whole[:, 0])


def _validation_parts(pools: Pools, used: Sequence[Mixture], folder: Path, metric: str) -> dict[str, Embeddings]:
    """Return the judging images of each pool: validation of groups that no mixture of the search draws from."""
    parts = {}
    for name, part in ValidationScores(folder, pools).parts.items():
        if metric.startswith("pair_") and name != "pairs":
            continue
        free = np.logical_and.reduce([unseen(pools, mixture, part.records) for mixture in used], axis=0)
        rows = np.flatnonzero(free)
        unsafe = int(part.records.labels[rows].sum())
        if not FEWEST <= unsafe <= len(rows) - FEWEST:
            raise DataError(
                f"score=validation takes at least {FEWEST} safe and {FEWEST} unsafe images of the {name} pool that no "
                f"trial trains on; there are {len(rows) - unsafe} and {unsafe}. Lower mixture.budget or seeds, mark "
                "records with split: val, or search without mixture settings by score=folds."
            )
        parts[name] = part.take(rows)
    return parts


def product(choices: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    """Every combination of choices by name."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))
