"""The shortcut check: how real data alone does where test images share its contexts, and how on pairs, which do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guardtrain.curves.point_intervals import with_test_images
from guardtrain.curves.statistics import select, summarise

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.bootstrap import PointReplicates

IN_DOMAIN = "in_domain"  # what the data configs call a test set of the real pool's kind


@dataclass(frozen=True)
class Shortcut:
    """Real data alone, one head, at its largest budget that both test sets have.

    Args:
        head: its name.
        in_domain: the test set that is taken to share the training images' contexts.
        guessed: whether it is taken so only because no other set is without pairs.
        test: the test set of pairs.
        budget: n.
        auroc, right: rows of `summarise`: AUROC on `in_domain`, share of pairs of `test` with both sides right.
    """

    head: str
    in_domain: str
    guessed: bool
    test: str
    budget: int
    auroc: pd.Series
    right: pd.Series

    def doubt(self) -> str:
        """Return what to say beside the figures where nobody said which test set shares the contexts; "" otherwise."""
        if not self.guessed:
            return ""
        return (
            f"If '{self.in_domain}' is not of the real pool's kind this says nothing of shortcuts: plot.in_domain "
            "names the set that is, plot.in_domain='' leaves this out."
        )


def shortcuts(
    whole: pd.DataFrame,
    in_domain: str | None = None,
    boots: Mapping[tuple[str, str], PointReplicates] | None = None,
) -> list[Shortcut]:
    """The shortcut check of every head and test set of pairs; empty where there is nothing to check it with.

    Args:
        whole: a results table's slices `all`.
        in_domain: the test set that shares the training images' contexts; None for the one called "in_domain", else
            the only one without pairs; "" for no check.
        boots: bootstraps by (test, metric): intervals of these are over seeds and test groups; of others over seeds.
    """
    boots = boots or {}
    real = whole[whole["control"] == "none"]
    tests = [str(test) for test in dict.fromkeys(real["test"])]
    paired = [test for test in tests if real.loc[real["test"] == test, "pair_both_right"].notna().any()]
    unpaired = [test for test in tests if test not in paired]
    guessed = in_domain is None and IN_DOMAIN not in tests
    if guessed and len(unpaired) != 1:
        return []
    shared = unpaired[0] if guessed else IN_DOMAIN if in_domain is None else in_domain
    out = []
    for head in dict.fromkeys(real["head"]):
        own = real[real["head"] == head]
        a = select(own, {"test": shared})
        every = a[a["auroc"].notna()]
        for test in (test for test in paired if test != shared):
            b = select(own, {"test": test})
            a, b = every, b[b["pair_both_right"].notna()]
            if common := set(a["budget"]) & set(b["budget"]):
                n = max(common)
                a, b = a[a["budget"] == n], b[b["budget"] == n]
                auroc = with_test_images(summarise(a, "auroc"), boots.get((shared, "auroc"))).iloc[0]
                wide = boots.get((test, "pair_both_right"))
                right = with_test_images(summarise(b, "pair_both_right"), wide).iloc[0]
                out.append(Shortcut(str(head), shared, guessed, test, int(n), auroc, right))
    return out
