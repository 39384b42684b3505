"""Linear heads at their optimum, against scikit-learn's, and scipy's where pairs are more than two images."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from guardtrain.heads import LinearBank
from guardtrain.training.batches import RunPlan
from guardtrain.training.optimum import LinearOptimum, fold_heads, whole_heads
from guardtrain.training.prefixes import PrefixHead
from guardtrain.training.settings import LossSettings, PairSettings


def _images(n: int, dim: int, *, ill: bool, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows `(n, dim)` far from the origin and labels, a third unsafe; ill-conditioned as CLIP's are, or round."""
    rng = np.random.default_rng([seed, n, dim])
    x = rng.standard_normal((n, dim))
    labels = x @ rng.standard_normal(dim) / dim**0.5 + rng.standard_normal(n) > 0.5
    labels[:2] = [True, False]
    spread = np.logspace(0, -3, dim) if ill else np.ones(dim)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return torch.from_numpy(0.1 * (x * spread) @ rotation + 0.5).float(), torch.from_numpy(labels).long()


def _optimum(x, labels, plans, strengths, *, loss: LossSettings, heads=None, **settings) -> LinearOptimum:
    heads = whole_heads(plans) if heads is None else heads
    settings = {"tolerance": 1e-7, "iterations": 3000} | settings
    optimum = LinearOptimum(x, labels, plans, heads, torch.as_tensor(strengths), loss=loss, **settings)
    while not optimum.finished:
        optimum.advance(100)
    return optimum


def _heads(optimum: LinearOptimum, dim: int) -> LinearBank:
    bank = LinearBank(len(optimum.points), dim)
    optimum.write(bank)
    return bank


def _standardised(x: torch.Tensor, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The images as a head sees them that learns from these `rows`, and its mean and scale; all in float64."""
    own = x[rows].double().numpy()
    mean = own.mean(0)
    scale = float(np.sqrt(np.square(own - mean).mean()))
    return (own - mean) / scale, mean, scale


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("ill", [True, False])
@pytest.mark.parametrize(("n", "dim"), [(8, 5), (40, 64), (150, 20), (500, 40)])
def test_heads_without_pairs_are_scikit_learns(n: int, dim: int, ill: bool, balanced: bool) -> None:
    x, labels = _images(n, dim, ill=ill)
    y = labels.numpy()
    penalties = [1e-2, 1.0, 30.0, 1e3]
    plan, weighting = RunPlan(np.arange(n), seed=0), "balanced" if balanced else "none"
    bank = _heads(_optimum(x, labels, [plan] * 4, [penalties], loss=LossSettings(weighting)), dim)
    z, mean, scale = _standardised(x, plan.train)
    np.testing.assert_allclose(bank.input_mean, np.tile(mean, (4, 1)), atol=1e-6)
    np.testing.assert_allclose(bank.input_scale, np.full(4, scale), rtol=1e-5)
    weights = n / (2 * np.bincount(y))[y] if balanced else np.ones(n)
    for r, l2 in enumerate(penalties):

        def objective(w: np.ndarray, b: float, l2: float = l2) -> float:
            return float(weights @ np.logaddexp(0, (1 - 2 * y) * (z @ w + b)) / n + l2 / (2 * n) * w @ w)

        theirs = LogisticRegression(
            C=1 / l2, class_weight="balanced" if balanced else None, solver="newton-cholesky", tol=1e-10, max_iter=1000
        ).fit(z, y)
        w, b = bank.weight[r, :, 0].detach().double().numpy(), bank.bias[r].item()
        assert objective(w, b) <= objective(theirs.coef_[0], theirs.intercept_[0]) * (1 + 1e-6)
        largest = np.abs(theirs.coef_).max()
        np.testing.assert_allclose(w, theirs.coef_[0], rtol=0, atol=2e-3 * largest + 1e-5)
        np.testing.assert_allclose(b, theirs.intercept_[0], rtol=0, atol=2e-3 * max(1.0, largest))


def test_a_path_of_strengths_ends_at_the_last_ones_optimum() -> None:
    x, labels = _images(120, 10, ill=True)
    plans = [RunPlan(np.arange(120), 0), RunPlan(np.arange(60), 0)]
    path = _optimum(x, labels, plans, [[1e3, 1e3], [30.0, 10.0], [1.0, 0.1]], loss=LossSettings())
    direct = _optimum(x, labels, plans, [[1.0, 0.1]], loss=LossSettings())
    for a, b in zip(_heads(path, 10).parameters(), _heads(direct, 10).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_head_does_not_depend_on_its_neighbours() -> None:
    """Neighbours change the axes, and when a head leaves the work; not what it finds."""
    x, labels = _images(300, 16, ill=True)
    plans = [RunPlan(np.random.default_rng([s, 9]).permutation(300)[:n], s) for s in (0, 1) for n in (20, 100, 300)]
    strengths = torch.tensor([100.0, 0.01, 1.0, 0.1, 1000.0, 3.0])
    together = _heads(_optimum(x, labels, plans, strengths[None], loss=LossSettings()), 16)
    for r, plan in enumerate(plans):
        alone = _heads(_optimum(x, labels, [plan], strengths[None, r : r + 1], loss=LossSettings()), 16)
        torch.testing.assert_close(alone(x)[0], together(x)[r], rtol=1e-4, atol=1e-3)


# --- pairs ---


@dataclass(frozen=True)
class PairProblem:
    """Real images, and pairs from a shifted domain in which a label is another direction."""

    x: torch.Tensor
    labels: torch.Tensor
    plan: RunPlan


def _pair_problem(n_real: int, n_pairs: int, dim: int, seed: int = 0, reals: int = 200) -> PairProblem:
    rng = np.random.default_rng(seed)
    x, labels = _images(reals, dim, ill=False, seed=seed)
    shift, feature = 0.1 * rng.standard_normal((2, dim))
    unsafe = 0.1 * rng.standard_normal((40, dim)) + 0.5 + shift
    safe = unsafe - 0.5 * feature + 0.03 * rng.standard_normal((40, dim))
    pair_x = np.stack([unsafe, safe], axis=1).reshape(-1, dim)
    order = rng.permutation(40)[:n_pairs]
    pairs = reals + 2 * order[:, None] + np.arange(2)
    train = np.concatenate([rng.permutation(reals)[:n_real], pairs[:, ::-1].reshape(-1)])
    return PairProblem(
        torch.cat([x, torch.from_numpy(pair_x).float()]),
        torch.cat([labels, torch.tensor([1, 0]).repeat(40)]),
        RunPlan(train, seed, split=n_real, pairs=pairs),
    )


class FullObjective:
    """The penalised loss of one head as `PrefixLoss` and `PairSettings` say it, in numpy, of (weights, bias, v).

    Real images have the intercept `bias + offset·v`, and the penalty is on v as on a weight.
    """

    def __init__(self, problem: PairProblem, loss: LossSettings, l2: float) -> None:
        plan = problem.plan
        self.z, mean, scale = _standardised(problem.x, plan.train)
        self.y = problem.labels[plan.train].numpy()
        n = len(self.y)
        self.real = np.arange(n) < plan.split
        both = bool(self.real.any() and not self.real.all())
        a = n / (2 * np.bincount(self.y, minlength=2))[self.y] if loss.class_weight == "balanced" else np.ones(n)
        g, share = 1.0, loss.pairs.mass
        if not self.real.all():
            g = max(1.0, share / (1 - share) * a[self.real].sum() / a[~self.real].sum())
        self.a = a * np.where(self.real, 1.0, g)
        self.a, self.g = self.a / self.a.sum(), g / self.a.sum()
        halves = (problem.x[torch.from_numpy(plan.pairs)].double().numpy() - mean) / scale  # (k, 2, D)
        self.middle, self.difference = halves.mean(1), halves[:, 0] - halves[:, 1]
        self.pairs, self.ridge = loss.pairs, l2 / n
        self.offset = loss.pairs.offset if both else 0.0

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        w, b, v = point[:-2], point[-2], point[-1]
        sign = 1 - 2 * self.y
        margin = sign * (self.z @ w + b + self.offset * v * self.real)
        m, d = self.middle @ w + b, self.difference @ w
        c, k = self.g * self.pairs.centring, self.g * self.pairs.logistic
        loss = self.a @ np.logaddexp(0, margin) + c * m @ m + k * np.logaddexp(0, -d).sum()
        slope = self.a * sign * expit(margin)
        pull = k * expit(-d)
        gradient = np.concatenate(
            [
                slope @ self.z + 2 * c * m @ self.middle - pull @ self.difference + self.ridge * w,
                [slope.sum() + 2 * c * m.sum(), self.offset * slope[self.real].sum() + self.ridge * v],
            ]
        )
        return float(loss + self.ridge / 2 * (w @ w + v * v)), gradient

    def minimum(self) -> tuple[float, np.ndarray]:
        start = np.zeros(self.z.shape[1] + 2)
        found = scipy.optimize.minimize(self, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
        return float(found.fun), found.x

    def at(self, weight: np.ndarray, bias: float) -> float:
        """The loss of a head, whose v is the best one: a head does not keep it."""
        head = np.append(weight, bias)
        return float(scipy.optimize.minimize_scalar(lambda v: self(np.append(head, v))[0], tol=1e-12).fun)


PAIR_LOSSES = {
    "mass": PairSettings(mass=0.8),
    "centring": PairSettings(centring=0.7),
    "logistic": PairSettings(logistic=1.5),
    "offset": PairSettings(offset=3.0),
    "a small offset": PairSettings(offset=0.2),
    "all": PairSettings(mass=0.5, centring=0.3, logistic=0.5, offset=1.0),
}


@pytest.mark.parametrize("balanced", ["balanced", "none"])
@pytest.mark.parametrize("pairs", PAIR_LOSSES.values(), ids=PAIR_LOSSES.keys())
def test_pair_aware_heads_are_at_the_minimum_of_the_whole_objective(pairs: PairSettings, balanced: str) -> None:
    loss = LossSettings(balanced, pairs=pairs)
    for n_real, n_pairs, l2 in ((60, 4, 1.0), (150, 30, 0.05), (20, 30, 100.0)):
        problem = _pair_problem(n_real, n_pairs, 12)
        bank = _heads(_optimum(problem.x, problem.labels, [problem.plan], [[l2]], loss=loss), 12)
        objective = FullObjective(problem, loss, l2)
        least, point = objective.minimum()
        w, b = bank.weight[0, :, 0].detach().double().numpy(), bank.bias[0].item()
        assert objective.at(w, b) <= least * (1 + 1e-6)
        np.testing.assert_allclose(w, point[:-2], rtol=0, atol=2e-3 * np.abs(point[:-2]).max() + 1e-4)
        assert b == pytest.approx(point[-2], abs=5e-3)


def test_heads_with_one_kind_of_images_are_the_same_beside_heads_with_both() -> None:
    """They have one intercept, whichever of a bank's two it is."""
    loss = LossSettings(pairs=PairSettings(offset=2.0))
    problem = _pair_problem(80, 20, 12)
    whole = problem.plan
    real = RunPlan(whole.train[:80], 0, split=80, pairs=whole.pairs[:0])
    pooled = RunPlan(whole.train[80:], 0, split=0, pairs=whole.pairs)
    together = _heads(_optimum(problem.x, problem.labels, [real, whole, pooled], [[0.5] * 3], loss=loss), 12)
    for r, plan in ((0, real), (2, pooled)):
        z, _, _ = _standardised(problem.x, plan.train)
        theirs = LogisticRegression(C=2.0, class_weight="balanced", solver="newton-cholesky", tol=1e-10)
        theirs.fit(z, problem.labels[plan.train].numpy())
        np.testing.assert_allclose(together.weight[r, :, 0].detach(), theirs.coef_[0], atol=2e-3)
        assert together.bias[r].item() == pytest.approx(theirs.intercept_[0], abs=2e-3)


# --- folds ---


@pytest.mark.parametrize("balanced", [True, False])
def test_fold_heads_are_judged_by_the_auroc_of_scikit_learns_folds(balanced: bool) -> None:
    x, labels = _images(200, 12, ill=True)
    rng = np.random.default_rng(3)
    plans = [RunPlan(rng.permutation(200)[:n], seed=i, folds=np.arange(n) % 4) for i, n in enumerate((40, 200))]
    penalties = [100.0, 1.0, 0.05]
    heads = fold_heads(plans, labels.numpy())
    assert heads == [PrefixHead(p, fold) for p in range(2) for fold in range(4)]
    strengths = torch.tensor(penalties)[:, None].expand(-1, len(heads))
    loss = LossSettings("balanced" if balanced else "none")
    optimum = _optimum(x, labels, plans, strengths, loss=loss, heads=heads, held_out=True)
    assert len(optimum.held_out_losses) == 3
    for l2, losses in zip(penalties, optimum.held_out_losses, strict=True):
        for head, ours in zip(heads, losses.tolist(), strict=True):
            plan = plans[head.plan]
            out = plan.folds == head.left_out
            z, mean, scale = _standardised(x, plan.train[~out])
            y, held_y = labels[plan.train[~out]].numpy(), labels[plan.train[out]].numpy()
            theirs = LogisticRegression(
                C=1 / l2, class_weight="balanced" if balanced else None, solver="newton-cholesky", tol=1e-10
            ).fit(z, y)
            logits = theirs.decision_function((x[plan.train[out]].double().numpy() - mean) / scale)
            couples = held_y.sum() * (1 - held_y).sum()  # near its optimum a head may have a few in another order
            assert 1 - ours == pytest.approx(roc_auc_score(held_y, logits), abs=max(3 / couples, 0.004))


def test_pair_images_are_judged_without_the_intercept_of_their_own() -> None:
    problem = _pair_problem(60, 10, 12)
    plan = problem.plan
    folds = np.concatenate([np.arange(60) % 2, np.repeat(np.arange(10) % 2, 2)])
    folded = RunPlan(plan.train, 0, folds=folds, split=60, pairs=plan.pairs)
    loss = LossSettings("none", pairs=PairSettings(offset=2.0))
    optimum = _optimum(problem.x, problem.labels, [folded], [[1.0]], loss=loss, heads=[PrefixHead(0, 1)], held_out=True)
    out = folds == 1
    bank = LinearBank(1, problem.x.shape[1])
    optimum.write(bank)
    logits = bank(problem.x[plan.train[out]])[0].detach().numpy()
    expected = roc_auc_score(problem.labels[plan.train[out]].numpy(), logits)
    assert 1 - optimum.held_out_losses[0].item() == pytest.approx(expected, abs=1e-6)


def test_a_fold_of_one_class_is_not_judged() -> None:
    x, labels = _images(60, 5, ill=False)
    order = np.argsort(labels.numpy(), kind="stable")
    folds = np.repeat([0, 1, 1, 2], [10, 10, 30, 10])  # the first fold is all safe, the last all unsafe
    plan = RunPlan(order, 0, folds=folds)
    optimum = _optimum(
        x, labels, [plan], [[1.0] * 3], loss=LossSettings(), heads=[PrefixHead(0, f) for f in (0, 1, 2)], held_out=True
    )
    assert optimum.held_out_losses[0].isnan().tolist() == [True, False, True]


def test_a_fold_whose_others_hold_one_class_has_no_head() -> None:
    labels = np.array([1, 1, 0, 0, 0, 0])
    plan = RunPlan(np.arange(6), 0, folds=np.array([0, 0, 0, 1, 1, 2]))
    assert fold_heads([plan], labels) == [PrefixHead(0, 1), PrefixHead(0, 2)]
    assert whole_heads([plan, plan]) == [PrefixHead(0), PrefixHead(1)]


# --- what goes wrong, and on ---


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("held_out", [True, False])
def test_rows_that_are_not_finite_fail_the_heads_that_use_them(value: float, held_out: bool) -> None:
    x, labels = _images(100, 8, ill=False)
    x[70, 3] = value
    plans = [RunPlan(np.arange(a, b), 0, folds=np.arange(b - a) % 2) for a, b in ((0, 50), (40, 100), (75, 100))]
    heads = fold_heads(plans, labels.numpy())
    optimum = _optimum(x, labels, plans, [[1.0] * 6], loss=LossSettings(), heads=heads, held_out=held_out)
    assert optimum.failed.tolist() == [False, False, True, True, False, False]
    if held_out:
        assert optimum.held_out_losses[0].isfinite().tolist() == [True, True, False, False, True, True]
    else:
        assert bool(optimum.points[~optimum.failed].isfinite().all())


def test_all_rows_may_be_broken() -> None:
    x, labels = _images(20, 4, ill=False)
    x[:, 1] = np.nan
    optimum = _optimum(x, labels, [RunPlan(np.arange(20), 0)], [[1.0]], loss=LossSettings())
    assert optimum.failed.tolist() == [True]


def test_too_few_evaluations_leave_heads_unfinished() -> None:
    x, labels = _images(200, 30, ill=True)
    plans = [RunPlan(np.arange(200), 0)] * 2
    optimum = _optimum(x, labels, plans, [[1e-3, 1e-2]], loss=LossSettings(), iterations=3)
    assert optimum.unfinished == 2
    assert _optimum(x, labels, plans, [[1e-3, 1e-2]], loss=LossSettings()).unfinished == 0


@pytest.mark.parametrize("cut", [1, 8, 30, 60])
def test_state_round_trips(cut: int) -> None:
    x, labels = _images(150, 10, ill=True)
    plans = [RunPlan(np.arange(n), 0, folds=np.arange(n) % 3) for n in (60, 150)]
    heads = fold_heads(plans, labels.numpy())
    strengths = torch.tensor([10.0, 0.1])[:, None].expand(-1, len(heads))

    def make(held_out: bool) -> LinearOptimum:
        return LinearOptimum(
            x,
            labels,
            plans,
            heads,
            strengths,
            loss=LossSettings(),
            tolerance=1e-7,
            iterations=3000,
            held_out=held_out,
        )

    for held_out in (True, False):
        first, second = make(held_out), make(held_out)
        first.advance(cut)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for optimum in (first, second):
            optimum.advance(10_000)
            assert optimum.finished
            assert optimum.progress == 1
        torch.testing.assert_close(first.points, second.points, rtol=0, atol=0.2 if held_out else 1e-4)
        assert len(first.held_out_losses) == len(second.held_out_losses)
        for a, b in zip(first.held_out_losses, second.held_out_losses, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)


def test_progress_grows_to_one() -> None:
    x, labels = _images(150, 10, ill=True)
    plan = RunPlan(np.arange(150), 0)
    optimum = LinearOptimum(
        x,
        labels,
        [plan],
        whole_heads([plan]),
        torch.tensor([[10.0], [1.0]]),
        loss=LossSettings(),
        tolerance=1e-7,
        iterations=999,
    )
    seen = [optimum.progress]
    while not optimum.finished:
        optimum.advance(1)
        seen.append(optimum.progress)
    assert seen[0] == 0
    assert seen[-1] == 1
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
