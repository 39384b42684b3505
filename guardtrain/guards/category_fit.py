"""Fitting a guard's category head on the unsafe training images, and measuring it on unsafe validation images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guardtrain.blas import one_thread
from guardtrain.embeddings import Embeddings
from guardtrain.errors import DataError
from guardtrain.guards.category_head import CategoryHead
from guardtrain.guards.reliability import log_losses
from guardtrain.guards.settings import GuardSettings
from guardtrain.guards.thresholds_rates import Rate, effective_number
from guardtrain.guards.validation import Validation

STRENGTHS = (1000.0, 100.0, 10.0, 1.0, 0.1)  # l2, on inputs of unit mean square; scikit-learn's C is 1 / l2
_FOLDS = 3
_MOST = 10_000  # images it is fitted on; more make hardly a better head of a few thousand weights


@dataclass(frozen=True, eq=False)
class CategoryImages:
    """Unsafe images whose category is known.

    Args:
        embeddings: (M, D) float32.
        names: (M,) of their categories.
        groups: (M,) never independent evidence of each other.
    """

    embeddings: np.ndarray
    names: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, embeddings: Any, labels: np.ndarray, categories: np.ndarray, groups: np.ndarray) -> CategoryImages:
        """The unsafe ones with a category of images (N, D), (N,), (N,), (N,)."""
        known = np.array([name is not None for name in categories], dtype=bool)
        rows = np.flatnonzero((np.asarray(labels) == 1) & known)
        matrix = np.asarray(embeddings[rows], dtype=np.float32)
        return cls(matrix, categories[rows].astype(str), np.asarray(groups)[rows].astype(str))

    @classmethod
    def of_part(cls, part: Embeddings) -> CategoryImages:
        """Take the unsafe images among embeddings with their records."""
        records = part.records
        return cls.of(part.matrix, records.labels, records.categories, records.groups)

    @classmethod
    def joined(cls, parts: Iterable[CategoryImages]) -> CategoryImages:
        """Several as one, in order."""
        every = list(parts)
        return cls(*(np.concatenate([getattr(part, name) for part in every]) for name in vars(every[0])))

    def counts(self) -> dict[str, int]:
        """Independent images of each category: groups; the names sorted."""
        return {name: len(set(self.groups[self.names == name])) for name in sorted(set(self.names.tolist()))}

    def rows(self, chosen: np.ndarray) -> CategoryImages:
        """Return the images of an index or a mask."""
        return CategoryImages(self.embeddings[chosen], self.names[chosen], self.groups[chosen])


@dataclass(frozen=True)
class CategoryReport:
    """How often the likeliest category is the right one, on unsafe validation images of the head's categories.

    Args:
        accuracy: with a Clopper-Pearson interval.
        commonest: share that always naming the commonest training category has right.
        confidence: mean probability of the category that is named; equal to the accuracy where probabilities hold.
        log_loss: mean over images.
        confusion: (C, C) counts; a row an image's own category, a column what is named.
        others: unsafe validation images of no category, or of one that the head does not know.
    """

    accuracy: Rate
    commonest: float
    confidence: float
    log_loss: float
    confusion: tuple[tuple[int, ...], ...]
    others: int

    @property
    def better_than_one_name(self) -> bool:
        """Whether it is surely right more often than always naming the commonest category."""
        return self.accuracy.of > 0 and self.accuracy.low > self.commonest

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        numbers = {name: getattr(self, name) for name in ("commonest", "confidence", "log_loss")}
        plain = {name: None if np.isnan(value) else value for name, value in numbers.items()}
        return {
            "accuracy": self.accuracy.to_dict(),
            **plain,
            "confusion": [list(row) for row in self.confusion],
            "others": self.others,
        }


@dataclass(frozen=True, eq=False)
class FittedCategories:
    """A category head and how it was come by.

    Args:
        head: the head.
        images: independent unsafe training images of each of its categories.
        left_out: of categories that have too few; images of them get another's name.
        l2: strength of the penalty.
        report: on validation.
    """

    head: CategoryHead
    images: Mapping[str, int]
    left_out: Mapping[str, int]
    l2: float
    report: CategoryReport

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, what `config.json` says of it."""
        return {
            "names": list(self.head.names),
            "images": dict(self.images),
            "left_out": dict(self.left_out),
            "l2": self.l2,
            "validation": self.report.to_dict(),
        }


def category_line(said: Mapping[str, Any]) -> str:
    """Put what `FittedCategories.to_dict` says into one line."""
    accuracy = Rate.from_dict(said["validation"]["accuracy"])
    text = f"{len(said['names'])} of them"
    if not accuracy.of:
        return f"{text}; no unsafe validation image has one of these, so that it is not known how often rightly"
    commonest = f"{said['validation']['commonest']:.3f}".removeprefix("0")
    return (
        f"{text}, rightly {accuracy} on {accuracy.of:,} unsafe validation images (the commonest alone would be right "
        f"on {commonest})"
    )


def fit_categories(
    images: CategoryImages, validation: CategoryImages, minimum: int, others: int = 0
) -> FittedCategories:
    """Multinomial logistic regression on the categories that have enough images.

    The penalty is chosen by log-loss on folds left out, groups whole. Inputs are centred and divided by one number, as
    for heads; classes count as they come, so that probabilities hold where categories are as frequent as in training.

    Args:
        images: of training.
        validation: other images.
        minimum: independent images a category needs.
        others: unsafe validation images without a category.

    Raises:
        DataError: fewer than two categories have enough.
    """
    counts = images.counts()
    kept = {name: count for name, count in counts.items() if count >= minimum}
    if len(kept) < 2:
        have = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none has a category"
        raise DataError(
            f"Categories can be named where at least 2 have {minimum} unsafe training images each (of different "
            f"groups); there are: {have}."
        )
    used = np.flatnonzero(np.isin(images.names, list(kept)))
    if len(used) > _MOST:
        used = np.sort(np.random.default_rng(0).permutation(used)[:_MOST])
    train = images.rows(used)
    l2 = _strength(train)
    head = _fitted(train, [l2])[0]
    left_out = {name: count for name, count in counts.items() if name not in kept}
    return FittedCategories(head, kept, left_out, l2, category_report(head, validation, kept, others))


def named_in(
    images: CategoryImages | None, validation: Validation, settings: GuardSettings
) -> tuple[FittedCategories | None, tuple[str, ...]]:
    """The category head that the settings ask for, and what the card should say of it, or of there being none.

    Args:
        images: unsafe training images; None where they are not at hand.

    Raises:
        DataError: categories are asked for, and there are too few images.
    """
    if settings.categories is False or (images is None and settings.categories is None):
        return None, ()
    if images is None:
        raise DataError("categories=true: the training images of this run are not at hand. Leave it out.")
    own = CategoryImages.of(validation.embeddings, validation.labels, validation.categories, validation.groups)
    others = int(validation.labels.sum()) - len(own.names)
    try:
        found = fit_categories(images, own, settings.category_minimum, others)
    except DataError as error:
        if settings.categories:
            raise DataError(f"categories=true: {error} A lower category_minimum, or more images, would do.") from error
        return None, (f"No category is named. {error}",) if len(images.counts()) > 1 else ()
    notes = []
    if not found.report.better_than_one_name:
        doubt = "Validation does not show that categories are named better than by the commonest alone"
        if settings.categories is None:
            line = category_line(found.to_dict())
            return None, (f"No category is named. {doubt}: {line}. categories=true names them all the same.",)
        notes.append(f"{doubt}.")
    if found.left_out:
        few = ", ".join(f"{name} ({count})" for name, count in found.left_out.items())
        notes.append(
            f"Categories with fewer than {settings.category_minimum} unsafe training images are never named, an image "
            f"of them is given another's name: {few}."
        )
    return found, tuple(notes)


def kept_categories(
    head: CategoryHead, said: Mapping[str, Any], validation: Validation, settings: GuardSettings
) -> tuple[FittedCategories | None, tuple[str, ...]]:
    """The category head of a guard that is calibrated anew, as it is and measured on the new images; what to say of it.

    Args:
        head: of the guard.
        said: what its config says of it, see `FittedCategories.to_dict`.
        validation: the new images.
        settings: `categories: false` leaves it out.
    """
    if settings.categories is False:
        return None, ("It names no categories: the head that did is left out.",)
    own = CategoryImages.of(validation.embeddings, validation.labels, validation.categories, validation.groups)
    report = category_report(head, own, said["images"], int(validation.labels.sum()) - len(own.names))
    note = "Its category head is unchanged."
    if not report.accuracy.of:
        then = category_line(said).partition(", ")[2]
        note += f" Of these images none is an unsafe one of its categories; those it was made with it named {then}."
    elif not report.better_than_one_name:
        note += " These images do not show that categories are named better than by the commonest alone."
    return FittedCategories(head, said["images"], said["left_out"], said["l2"], report), (note,)


def category_report(
    head: CategoryHead, images: CategoryImages, frequency: Mapping[str, int], others: int = 0
) -> CategoryReport:
    """Measure a category head on unsafe images.

    Args:
        frequency: training images of each category.
        others: unsafe images without a category, to be told beside those of categories that the head does not know.
    """
    known = np.isin(images.names, head.names)
    own = images.rows(known)
    truth = np.searchsorted(head.names, own.names)  # names are sorted
    found = head.probabilities(own.embeddings)
    named = found.argmax(axis=1)
    size = len(head.names)
    confusion = np.bincount(truth * size + named, minlength=size * size).reshape(size, size)
    commonest = max(frequency, key=lambda name: (frequency[name], name))
    worth = effective_number(np.unique(own.groups, return_inverse=True)[1]) if len(truth) else None
    rows = np.arange(len(truth))
    nothing = float("nan")
    return CategoryReport(
        Rate.measured(int((named == truth).sum()), len(truth), effective=worth),
        float((own.names == commonest).mean()) if len(truth) else nothing,
        float(found.max(axis=1).mean()) if len(truth) else nothing,
        float(log_losses(found[rows, truth], np.ones(len(truth))).mean()) if len(truth) else nothing,
        tuple(tuple(map(int, row)) for row in confusion),
        others + int((~known).sum()),
    )


def _strength(images: CategoryImages) -> float:
    """The l2 with the lowest log-loss on folds left out; of equals the strongest."""
    from sklearn.model_selection import StratifiedGroupKFold

    total = np.zeros(len(STRENGTHS))
    splits = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0).split(images.names, images.names, images.groups)
    for train, test in splits:
        names = sorted(set(images.names[train].tolist()))
        if len(names) < 2:
            continue
        held_out = images.rows(test[np.isin(images.names[test], names)])
        truth = np.searchsorted(names, held_out.names)
        for i, head in enumerate(_fitted(images.rows(train), STRENGTHS)):
            p = head.probabilities(held_out.embeddings)[np.arange(len(truth)), truth]
            total[i] += log_losses(p, np.ones(len(truth))).sum()
    return STRENGTHS[int(total.argmin())]


def _fitted(images: CategoryImages, strengths: Sequence[float]) -> list[CategoryHead]:
    """A head for each strength, each started from the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x = images.embeddings.astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    scale = float(np.sqrt(np.square(x).mean())) or 1.0
    x /= scale
    model = LogisticRegression(tol=1e-5, max_iter=1000, warm_start=True)
    heads = []
    for strength in strengths:
        with warnings.catch_warnings(), one_thread():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=1 / strength).fit(x, images.names)
        weight, bias = model.coef_ / scale, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn keeps the second class's odds only
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        bias = bias - weight @ mean
        heads.append(CategoryHead(tuple(map(str, model.classes_)), weight.astype(np.float32), bias.astype(np.float32)))
    return heads
