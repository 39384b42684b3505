"""Mixtures of real and pair images at exact budgets and ratios, nested over budgets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from guardtrain.mixtures.counting import counts
from guardtrain.mixtures.ordering import checked_seed, order_pairs, order_real, order_unpaired
from guardtrain.mixtures.pool import Pool
from guardtrain.mixtures.splitting import assign_folds, checked_k, deal_both_classes, trainable
from guardtrain.mixtures.supply import Supply
from guardtrain.records import SAFE, UNSAFE


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
        self._folds: dict[tuple[int, int, str], tuple[np.ndarray, np.ndarray]] = {}

    @property
    def supply(self) -> Supply:
        """How many images there are to draw from."""
        return Supply.of(self.real, self.pairs)

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

        For one seed, the real rows of any two mixtures are prefixes of one ordering (`order_real`), but for the control
        `balanced`, and so are the pair rows of any two with the same control (`order_pairs`, also for `shuffled`, or
        `order_unpaired`). With `exact` rounding both numbers grow with the budget, so a smaller budget's images are a
        subset of a larger one's; with `nearest` the number of real images in `replace` may fall by up to 2 from one
        budget to the next.
        Every mixture holds both classes.

        Raises:
            MixtureError: what `counts` raises, and a pool with fewer images or pairs than are needed.
        """
        seed = checked_seed(seed)  # before the cache, to which 1.0 and True are the same as 1
        n_real, n_pair_images = self.supply.require(budget, ratio, arm, control, rounding)
        if control == "balanced":
            real = self._balanced(seed, *counts(budget, ratio, arm, rounding))
        else:
            real = self._order("real", seed)[:n_real]
        if not n_pair_images:
            return Mixture(arm, control, int(budget), float(ratio), seed, real, np.empty(0, dtype=np.int64))
        pairs = self._order(_ordering(control), seed)[:n_pair_images]
        return Mixture(arm, control, int(budget), float(ratio), seed, real, pairs)

    def _balanced(self, seed: int, n_real: int, n_pair_images: int) -> np.ndarray:
        """Real rows of which as many are unsafe, and as many safe, as of a mixture with so many pair images.

        First the mixture's own real images; then the next of the ordering, half of them unsafe and half safe, as many
        as it has pair images. With `exact` rounding a smaller budget's rows are among a larger one's.
        """
        order = self._order("real", seed)
        rest = order[n_real:]
        half = n_pair_images // 2
        further = [rest[self.real.labels[rest] == label][:half] for label in (SAFE, UNSAFE)]
        return np.concatenate([order[:n_real], np.stack(further, axis=1).reshape(-1)])

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
        ordering = _ordering(mixture.control)
        key = (mixture.seed, k, ordering)
        if key not in self._folds:
            pools = [(self.real, self._order("real", mixture.seed))]
            if self.pairs is not None:
                pools.append((self.pairs, self._order(ordering, mixture.seed)))
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


def _ordering(control: str) -> str:
    """Along which ordering of the pair pool the images of a control are drawn; of those without, folds are dealt."""
    return "unpaired" if control == "unpaired" else "paired"


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
