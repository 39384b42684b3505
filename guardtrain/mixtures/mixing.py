"""Mixtures of real and pair images at exact budgets and ratios, nested over budgets."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import floor

import numpy as np

from guardtrain.errors import MixtureError
from guardtrain.mixtures.ordering import checked_seed, order_pairs, order_real, order_unpaired
from guardtrain.mixtures.pool import Pool
from guardtrain.mixtures.splitting import assign_folds, checked_k, deal_both_classes, trainable
from guardtrain.records import SAFE, UNSAFE

ARMS = ("replace", "add")
CONTROLS = ("paired", "unpaired", "real")
ROUNDINGS = ("exact", "nearest")

_NOISE = 1e-9  # budget * ratio this close to a whole number, relative to the budget, is that number


@dataclass(frozen=True, eq=False)
class Mixture:
    """The training images of one run.

    Args:
        arm: one of `ARMS`.
        control: one of `CONTROLS`.
        budget: n.
        ratio: rho, as asked for; `n_pair_images` says what it came to.
        seed: of the orderings that `real` and `pairs` are prefixes of.
        real: (n_real,) int64 rows of the real pool.
        pairs: (n_pair_images,) int64 rows of the pair pool.
    """

    arm: str
    control: str
    budget: int
    ratio: float
    seed: int
    real: np.ndarray
    pairs: np.ndarray

    @property
    def n_real(self) -> int:
        """Number of images of the real pool."""
        return len(self.real)

    @property
    def n_pair_images(self) -> int:
        """Number of images (not pairs) of the pair pool."""
        return len(self.pairs)

    @property
    def n_images(self) -> int:
        """Number of images altogether."""
        return self.n_real + self.n_pair_images


def counts(
    budget: int, ratio: float, arm: str = "replace", rounding: str = "exact", control: str = "paired"
) -> tuple[int, int]:
    """How many real and how many pair images a mixture has: (n_real, n_pair_images).

    With m = budget * ratio pair images: `replace` has budget - m real ones, `add` has budget. The control `real` has
    the m as further real images, the other two have them of the pair pool. m is even for every control, so that
    all controls of a point of the grid have as many images.

    Args:
        budget: n >= 2.
        ratio: rho in [0, 1].
        arm: one of `ARMS`.
        rounding: `exact` refuses an m that is not an even whole number (noise of floats aside); `nearest` takes the
            nearest even number, the larger of two equally near, but never more than the budget. In `replace` the
            total is the budget with either.
        control: one of `CONTROLS`.

    Raises:
        MixtureError: an argument out of its range, or an m that `exact` refuses, with the nearest ratios and
            budgets that work.

    >>> counts(80, 0.1), counts(80, 0.1, "add"), counts(80, 0.1, "add", control="real")
    ((72, 8), (80, 8), (88, 0))
    >>> counts(10, 0.5, rounding="nearest")
    (4, 6)
    """
    _allowed("arm", arm, ARMS)
    _allowed("control", control, CONTROLS)
    _allowed("rounding", rounding, ROUNDINGS)
    if isinstance(budget, bool) or not isinstance(budget, (int, np.integer)) or budget < 2:
        raise MixtureError(
            f"The budget is {budget!r}; a whole number of at least 2 images (one of each class) is needed."
        )
    if not 0 <= ratio <= 1:  # also refuses NaN
        raise MixtureError(f"The ratio is {ratio!r}; a share between 0 (real images only) and 1 is needed.")
    budget = int(budget)
    wanted = budget * float(ratio)
    if rounding == "exact":
        m = round(wanted)
        if abs(wanted - m) > _NOISE * budget or m % 2:
            raise MixtureError(_inexact(budget, float(ratio), wanted))
    else:
        m = 2 * floor(wanted / 2 + 0.5 + _NOISE)
        m -= 2 * (m > budget)
    n_real = budget - m if arm == "replace" else budget
    return (n_real + m, 0) if control == "real" else (n_real, m)


def _allowed(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise MixtureError(f"Unknown {what} {value!r}; it must be one of {', '.join(allowed)}.")


def _inexact(budget: int, ratio: float, wanted: float) -> str:
    """Why budget * ratio cannot be had exactly, and the nearest that can."""
    below = 2 * floor(wanted / 2)
    ratios = " or ".join(f"{m / budget:.6g}" for m in (below, below + 2) if m <= budget)
    message = (
        f"Budget {budget} at ratio {ratio:.6g} asks for {wanted:.6g} pair images; an even whole number is needed, "
        f"since a pair has two. At this budget the nearest ratios that work are {ratios}"
    )
    share = Fraction(ratio).limit_denominator(10_000)
    step = share.denominator * (1 if share.numerator % 2 == 0 else 2)  # budget * share is even at multiples of it
    if abs(float(share) - ratio) < _NOISE:
        lower = budget // step * step
        budgets = " or ".join(str(b) for b in (lower, lower + step) if b >= 2)
        message += f"; at this ratio the nearest budgets are {budgets}"
    return message + ". rounding='nearest' takes the nearest even number instead."


class Mixer:
    """Mixtures of one real and one pair pool; orderings are computed once a seed, a mixture is then two slices.

    Args:
        real: the real images.
        pairs: the pairs; None where only ratio 0 or the control `real` is asked for.

    Raises:
        MixtureError: a pool of one class, a broken pair, or a pair pool with records that are in no pair.

    >>> real = Pool(ids=[f"r{i}" for i in range(8)], labels=[0, 1] * 4)
    >>> pairs = Pool(ids=list("abcd"), labels=[0, 1, 0, 1], pair_ids=list("ppqq"), groups=list("ppqq"), name="pairs")
    >>> mixture = Mixer(real, pairs).mix(budget=8, ratio=0.5, seed=0)
    >>> mixture.n_real, mixture.n_pair_images
    (4, 4)
    """

    def __init__(self, real: Pool, pairs: Pool | None = None) -> None:
        real.require_both_classes()
        if pairs is not None:
            pairs.require_all_paired()
        self.real = real
        self.pairs = pairs
        self._orders: dict[tuple[str, int], np.ndarray] = {}
        self._folds: dict[tuple[int, int, bool], tuple[np.ndarray, np.ndarray]] = {}

    def mix(
        self,
        *,
        budget: int,
        ratio: float,
        arm: str = "replace",
        control: str = "paired",
        seed: int,
        rounding: str = "exact",
    ) -> Mixture:
        """The mixture of these settings; see `counts` for how many images of which kind it has.

        For one seed, the real rows of any two mixtures are prefixes of one ordering (`order_real`), and so are the
        pair rows of any two with the same control (`order_pairs`, `order_unpaired`). With `exact` rounding both
        numbers grow with the budget, so a smaller budget's images are a subset of a larger one's; with `nearest`
        the number of real images in `replace` may fall by up to 2 from one budget to the next.
        Every mixture holds both classes.

        Raises:
            MixtureError: what `counts` raises, and a pool with fewer images or pairs than are needed.
        """
        seed = checked_seed(seed)  # before the cache, to which 1.0 and True are the same as 1
        n_real, n_pair_images = counts(budget, ratio, arm, rounding, control)
        if n_real > self.real.n:
            self._too_few_real(n_real, budget, ratio, arm, control)
        real = self._order("real", seed)[:n_real]
        if not n_pair_images:
            return Mixture(arm, control, int(budget), float(ratio), seed, real, np.empty(0, dtype=np.int64))
        if self.pairs is None:
            raise MixtureError(
                f"Ratio {ratio:.6g} with control '{control}' asks for {n_pair_images} pair images, and there is no "
                "pair pool. Give one, or use ratio 0 or control 'real'."
            )
        available = self.pairs.n if control == "paired" else self.pairs.n_pairs
        if n_pair_images > available:
            self._too_few_pairs(n_pair_images, budget, ratio, arm, control)
        pairs = self._order(control, seed)[:n_pair_images]
        return Mixture(arm, control, int(budget), float(ratio), seed, real, pairs)

    def folds(self, mixture: Mixture, k: int) -> np.ndarray | None:
        """The fold of every image of a mixture of this mixer: group-safe, stratified, the same at every budget.

        Folds are assigned along the orderings of the mixture's seed and control over the whole pools, so an image
        keeps its fold when the budget grows. A group in both pools lies in one fold.

        There are k folds, or as many as the mixture has groups with images of its scarcer class, if these are fewer: a
        fold more would be judged on one class. With one such group there is no cross-validation, for whatever leaves
        it out has one class to learn from. An image may change its fold where the number of folds changes. Where the
        folds along the orderings (groups that hold both classes, few groups spread over both pools) have one that is
        empty, or that nobody could be trained without, the mixture's groups are dealt anew, both classes to each fold.

        Args:
            mixture: from `mix` of this mixer.
            k: number of folds asked for, >= 2. Fold 0 serves as the validation split.

        Returns:
            (n_images,) int64 in [0, folds): first the real images, then the pair images, as in the mixture. None where
            the scarcer class has one group.

        Raises:
            MixtureError: k < 2.
        """
        fold, labels, groups, few = self._along_orderings(mixture, checked_k(k))
        if few < 2:
            return None
        return deal_both_classes(groups, labels, few) if fold is None else fold

    def has_usual_folds(self, mixture: Mixture, k: int) -> bool:
        """Whether `folds` are k folds along the orderings: not fewer, none, or dealt anew.

        Raises:
            MixtureError: k < 2.
        """
        fold, _, _, few = self._along_orderings(mixture, checked_k(k))
        return few == k and fold is not None

    def _along_orderings(self, mixture: Mixture, k: int) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, int]:
        """Folds along the orderings, None where they will not do; labels, groups, and how many folds there can be."""
        rows = np.concatenate([mixture.real, self.real.n + mixture.pairs])
        groups, labels = self._groups[rows], self._labels[rows]
        k = min(k, *(int(np.count_nonzero(np.bincount(groups[labels == label]))) for label in (SAFE, UNSAFE)))
        if k < 2:
            return None, labels, groups, k
        in_real, in_pairs = self._dealt(mixture, k)
        fold = np.concatenate([in_real[mixture.real], in_pairs[mixture.pairs]])
        return fold if trainable(fold, labels, k) else None, labels, groups, k

    @cached_property
    def _groups(self) -> np.ndarray:
        """A number for the group of each record, those of the real pool first; a group in both pools has one."""
        names = [self.real.groups] + ([] if self.pairs is None else [self.pairs.groups])
        return np.asarray(np.unique(np.concatenate(names), return_inverse=True)[1])

    @cached_property
    def _labels(self) -> np.ndarray:
        """The label of each record, those of the real pool first."""
        return np.concatenate([self.real.labels] + ([] if self.pairs is None else [self.pairs.labels]))

    def _dealt(self, mixture: Mixture, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The folds of all of the real and of the pair pool, along the orderings of the mixture's seed and control."""
        unpaired = mixture.control == "unpaired"
        key = (mixture.seed, k, unpaired)
        if key not in self._folds:
            pools = [(self.real, self._order("real", mixture.seed))]
            if self.pairs is not None:
                pools.append((self.pairs, self._order("unpaired" if unpaired else "paired", mixture.seed)))
            assigned = assign_folds(pools, k, mixture.seed)
            self._folds[key] = (assigned[0], assigned[1] if len(assigned) > 1 else np.empty(0, dtype=np.int64))
        return self._folds[key]

    def _order(self, kind: str, seed: int) -> np.ndarray:
        if (kind, seed) not in self._orders:
            pool = self.real if kind == "real" else self.pairs
            assert pool is not None
            order = {"real": order_real, "paired": order_pairs, "unpaired": order_unpaired}[kind](pool, seed)
            order.flags.writeable = False  # mixtures are views of it
            self._orders[kind, seed] = order
        return self._orders[kind, seed]

    def _too_few_real(self, needed: int, budget: int, ratio: float, arm: str, control: str) -> None:
        raise MixtureError(
            f"The {self.real.name} pool has {self.real.n} images; budget {budget} at ratio {ratio:.6g} with arm "
            f"'{arm}' and control '{control}' needs {needed}."
        )

    def _too_few_pairs(self, needed: int, budget: int, ratio: float, arm: str, control: str) -> None:
        assert self.pairs is not None
        there = self.pairs.n_pairs
        message = (
            f"The {self.pairs.name} pool has {there} pairs; budget {budget} at ratio {ratio:.6g} with arm '{arm}' "
        )
        if control == "paired":
            raise MixtureError(f"{message}and control 'paired' needs {needed // 2} ({needed} images).")
        raise MixtureError(
            f"{message}and control 'unpaired' needs {needed}: one image of each, so twice as many pairs as control "
            f"'paired', which needs {needed // 2}."
        )


def mix(
    real: Pool,
    pairs: Pool | None,
    *,
    budget: int,
    ratio: float,
    arm: str = "replace",
    control: str = "paired",
    seed: int,
    rounding: str = "exact",
) -> Mixture:
    """One mixture; `Mixer` gives many from the same pools much faster. See `Mixer.mix` and `counts`.

    >>> real = Pool(ids=[f"r{i}" for i in range(8)], labels=[0, 1] * 4)
    >>> mix(real, None, budget=4, ratio=0.0, seed=0).n_images
    4
    """
    return Mixer(real, pairs).mix(budget=budget, ratio=ratio, arm=arm, control=control, seed=seed, rounding=rounding)
