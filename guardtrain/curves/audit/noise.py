"""Wrong labels: which labels the readers contradict, and whether more of them than a clean set's overlap explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import chi2

from guardtrain.blas import one_thread

_MOST_WRONG = 0.5  # a share of wrong labels from which on the labels mean the opposite


@dataclass(frozen=True)
class NoiseFit:
    """How labels go with what readers say of the images, when some labels may be wrong.

    Args:
        logits: `(N,)` of being unsafe, by a logistic regression on the scores that takes all labels for right.
        weights: `(K,)` of the scores in it.
        wrong: `(N,)` probability that the image's label is wrong.
        p_value: of all labels being right.
    """

    logits: np.ndarray
    weights: np.ndarray
    wrong: np.ndarray
    p_value: float

    @property
    def probability(self) -> np.ndarray:
        """`(N,)` of being unsafe."""
        return np.asarray(expit(self.logits))

    @property
    def expected(self) -> float:
        """How many labels are wrong, by the model."""
        return float(self.wrong.sum())


def fit_noise(scores: np.ndarray, labels: np.ndarray, *, symmetric: bool = False, intercept: bool = True) -> NoiseFit:
    """Logistic regression of labels on scores, with and without a share of labels that are the opposite.

    `P(unsafe) = a + (1 - a - b) σ(w·s + c)`: however sure the readers are, a share b of what is unsafe is labelled
    safe, a share a of what is safe unsafe (Copas, "Binary regression models for contaminated data", Journal of the
    Royal Statistical Society B 50(2), 1988). Clean labels have a = b = 0, so hard images near the boundary are no
    evidence: only labels that contradict readers who are otherwise never wrong when so sure. Twice the log-likelihood's
    gain is compared with χ² of as many degrees as there are shares. That errs on the side of calling labels clean,
    since shares cannot be below 0 (Self and Liang, Journal of the American Statistical Association 82, 1987), and makes
    up for readers whose scores are not quite log-odds.

    Args:
        scores: `(N, K)` float, larger for unsafe.
        labels: `(N,)` 0 or 1.
        symmetric: one share, a = b.
        intercept: with c; without, scores of 0 are undecided.

    >>> rng = np.random.default_rng(0)
    >>> s = 4 * rng.normal(size=4000)
    >>> y = (rng.random(4000) < 1 / (1 + np.exp(-s))).astype(int)
    >>> y[:200] = 1 - y[:200]
    >>> fit = fit_noise(s[:, None], y)
    >>> fit.p_value < 1e-6, 100 < fit.expected < 300
    (True, True)
    """
    scale = np.sqrt(np.square(scores).mean(axis=0)) + 1e-12
    x = scores / scale
    if intercept:
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    y = labels.astype(np.float64)
    k = x.shape[1]
    ridge = 1e-4  # where the readers are never wrong the weights would grow without end

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, shares = parameters[:k], _MOST_WRONG * expit(parameters[k:])
        a, b = (shares[0], shares[-1]) if len(shares) else (0.0, 0.0)
        z = x @ weights
        right = expit(z)
        if not len(shares):
            value = -(y * log_expit(z) + (1 - y) * log_expit(-z)).sum()
            slope = right - y
        else:
            q = np.clip(a + (1 - a - b) * right, 1e-12, 1 - 1e-12)
            value = -(y * np.log(q) + (1 - y) * np.log1p(-q)).sum()
            of_q = (q - y) / (q * (1 - q))
            slope = of_q * (1 - a - b) * right * (1 - right)
        gradient = np.empty_like(parameters)
        gradient[:k] = x.T @ slope + 2 * ridge * weights
        if len(shares):
            of_shares = np.array([(of_q * (1 - right)).sum(), -(of_q * right).sum()])
            chain = shares * (1 - shares / _MOST_WRONG)
            gradient[k:] = (of_shares.sum() if len(shares) == 1 else of_shares) * chain
        return float(value + ridge * weights @ weights), gradient

    with one_thread():
        clean = minimize(loss, np.zeros(k), jac=True, method="L-BFGS-B")
    n_shares = 1 if symmetric else 2
    # from a few starts: steep weights and small shares, or the reverse, can both be a local optimum
    starts = [np.concatenate([steep * clean.x, np.full(n_shares, share)]) for steep in (1, 3) for share in (-4.0, -2.0)]
    with one_thread():
        best = min((minimize(loss, start, jac=True, method="L-BFGS-B") for start in starts), key=lambda one: one.fun)
    gain = max(0.0, 2 * (clean.fun - best.fun))
    shares = _MOST_WRONG * expit(best.x[k:])
    a, b = float(shares[0]), float(shares[-1])
    right = expit(x @ best.x[:k])
    told = np.where(y == 1, a * (1 - right), b * right)
    whole = np.where(y == 1, told + (1 - b) * right, told + (1 - a) * (1 - right))
    wrong = told / np.maximum(whole, 1e-12)
    weights = clean.x[: scores.shape[1]] / scale
    return NoiseFit(x @ clean.x, weights, wrong, float(chi2.sf(gain, n_shares)))


def confident_issues(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows whose label is contradicted, the most contradicted first: confident learning for two classes.

    Northcutt, Jiang and Chuang ("Confident Learning: Estimating Uncertainty in Dataset Labels", Journal of Artificial
    Intelligence Research 70, 2021), their "prune by noise rate": an image counts for a class where its probability is
    at least the mean of those labelled so; such counts, brought to the numbers of labels, say how many of each label
    are of the other class, and so many with the largest margin are taken. What cleanlab's `find_label_issues` returns
    for `filter_by="prune_by_noise_rate"`, which takes seconds to import and has many classes to care for.

    Args:
        probability: `(N,)` of being unsafe, out of fold.
        labels: `(N,)` 0 or 1.

    Returns:
        `(K,)` int64 rows.

    >>> confident_issues(np.array([0.9, 0.1, 0.2, 0.8, 0.95, 0.9]), np.array([0, 0, 0, 1, 1, 1])).tolist()
    [0]
    """
    each = np.stack([1 - probability, probability], axis=1)
    least = np.array([each[labels == label, label].mean() for label in (0, 1)])
    counts = each >= least - 1e-6
    guess = np.where(counts.all(axis=1), each.argmax(axis=1), np.where(counts.any(axis=1), counts.argmax(axis=1), -1))
    found = []
    for label in (0, 1):
        own = labels == label
        same, other = max(1, int((own & (guess == label)).sum())), int((own & (guess == 1 - label)).sum())
        wanted = round(own.sum() * other / (same + other))
        margin = each[:, 1 - label] - each[:, label]
        rows = np.flatnonzero(own & (margin > 0))
        found.append(rows[np.argsort(-margin[rows], kind="stable")][:wanted])
    rows = np.concatenate(found)
    return np.asarray(rows[np.argsort(-np.abs(probability[rows] - 0.5), kind="stable")])
