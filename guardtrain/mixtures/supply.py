"""What pools can supply: whether a mixture fits them, and the largest budget that does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from guardtrain.errors import MixtureError
from guardtrain.mixtures.counting import OF_REAL, counts
from guardtrain.mixtures.pool import Pool

LEAST_SHIFT = 0.02  # in the share of unsafe images, from where the control `balanced` says something
_STEPS = 20_000  # below a budget that the pools could supply, one whose shares are whole numbers is looked for so far


@dataclass(frozen=True)
class Supply:
    """How many images there are to draw from.

    Args:
        real: images of the real pool.
        unsafe: how many of them are unsafe.
        pairs: pairs (of two images each) of the pair pool; None where there is no such pool.
        real_name, pairs_name: what errors call them.
    """

    real: int
    unsafe: int
    pairs: int | None
    real_name: str = "real"
    pairs_name: str = "pairs"

    @classmethod
    def of(cls, real: Pool, pairs: Pool | None) -> Supply:
        """Return what two pools can supply.

        >>> Supply.of(Pool(ids=["a", "b"], labels=[0, 1]), None)
        Supply(real=2, unsafe=1, pairs=None, real_name='real', pairs_name='pairs')
        """
        if pairs is None:
            return cls(real.n, real.class_counts[1], None, real.name)
        return cls(real.n, real.class_counts[1], pairs.n_pairs, real.name, pairs.name)

    def require(
        self, budget: int, ratio: float, arm: str = "replace", control: str = "paired", rounding: str = "exact"
    ) -> tuple[int, int]:
        """How many real and how many pair images the mixture has (see `counts`), all of which there are.

        Raises:
            MixtureError: what `counts` raises, and a pool with fewer images or pairs than are needed.

        >>> Supply(40, 20, 10).require(40, 0.5)
        (20, 20)
        """
        n_real, n_pair_images = counts(budget, ratio, arm, rounding, control)
        asked = f"budget {budget} at ratio {ratio:.6g} with arm '{arm}'"
        if n_real > self.real:
            raise MixtureError(
                f"The {self.real_name} pool has {self.real} images; {asked} and control '{control}' needs {n_real}."
            )
        if control == "balanced":
            self._require_balanced(asked, *counts(budget, ratio, arm, rounding))
        if not n_pair_images:
            return n_real, n_pair_images
        if self.pairs is None:
            raise MixtureError(
                f"Ratio {ratio:.6g} with control '{control}' asks for {n_pair_images} pair images, and there is no "
                "pair pool. Give one, or use ratio 0 or control 'real'."
            )
        message = f"The {self.pairs_name} pool has {self.pairs} pairs; {asked} "
        halves = n_pair_images // 2
        if halves > self.pairs:
            raise MixtureError(f"{message}and control '{control}' needs {halves} ({n_pair_images} images).")
        if control == "unpaired" and n_pair_images > self.pairs:
            raise MixtureError(
                f"{message}and control 'unpaired' needs {n_pair_images}: one image of each, so twice as many pairs as "
                f"control 'paired', which needs {halves}."
            )
        return n_real, n_pair_images

    def _require_balanced(self, asked: str, n_real: int, n_pair_images: int) -> None:
        """Raises MixtureError unless each class has the images that take the places of the pairs' halves."""
        unsafe = self.unsafe * n_real / self.real  # of the prefix, give or take less than 1
        for kind, there, used in (
            ("unsafe", self.unsafe, math.ceil(unsafe)),
            ("safe", self.real - self.unsafe, math.ceil(n_real - unsafe)),
        ):
            if used + n_pair_images // 2 > there:
                raise MixtureError(
                    f"The {self.real_name} pool has {there} {kind} images; {asked} and control 'balanced', real images "
                    f"with the label shares of the mixture, needs {used + n_pair_images // 2}."
                )

    def rebalances(self, ratio: float, arm: str) -> bool:
        """Whether pairs change the share of unsafe images by more than `LEAST_SHIFT`, so that it needs a control.

        >>> Supply(100, 5, 50).rebalances(0.5, "replace"), Supply(100, 49, 50).rebalances(0.5, "replace")
        (True, False)
        """
        mixed = ratio if arm == "replace" else ratio / (1 + ratio)  # the share of pair images, half of them unsafe
        return mixed * abs(0.5 - self.unsafe / self.real) > LEAST_SHIFT

    def lacks(
        self, budget: int, ratio: float, arm: str = "replace", control: str = "paired", rounding: str = "exact"
    ) -> str:
        """Why the pools cannot supply a mixture; empty where they can.

        Raises:
            MixtureError: what `counts` raises, whatever there is.

        >>> Supply(40, 20, 10).lacks(80, 0.0)
        "The real pool has 40 images; budget 80 at ratio 0 with arm 'replace' and control 'paired' needs 80."
        """
        counts(budget, ratio, arm, rounding, control)
        try:
            self.require(budget, ratio, arm, control, rounding)
        except MixtureError as error:
            return str(error)
        return ""

    def largest(self, mixtures: Iterable[tuple[float, str, str]], rounding: str = "exact") -> int | None:
        """The largest budget at which all of these mixtures fit; None where none does.

        Args:
            mixtures: ratio, arm and control of each.
            rounding: see `counts`.

        >>> Supply(40, 20, 10).largest([(0.0, "replace", "paired"), (0.5, "replace", "unpaired")])
        20
        """
        wanted = list(mixtures)
        most = min((self._most(ratio, arm, control) for ratio, arm, control in wanted), default=0)
        for budget in range(most, max(1, most - _STEPS), -1):
            try:
                for ratio, arm, control in wanted:
                    self.require(budget, ratio, arm, control, rounding)
            except MixtureError:
                continue
            return budget
        return None

    def _most(self, ratio: float, arm: str, control: str) -> int:
        """A bound on the budget: what the pools could supply if shares needed not be whole, and an image on top."""
        real, pairs = self.real + 1, (self.pairs or 0) * (1 if control == "unpaired" else 2) + 1
        if control in OF_REAL:
            return int(real / (1 + ratio if arm == "add" else 1))
        share = 1 - ratio if arm == "replace" else 1.0
        return int(min([*([real / share] if share else []), *([pairs / ratio] if ratio else [])]))
