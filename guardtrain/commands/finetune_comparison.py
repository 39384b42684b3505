"""What tuning an encoder changed: a head on it against the frozen encoder's linear probe, on the same test images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from guardtrain.words import text_table

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.benchmarks.slices import Judged
    from guardtrain.embeddings import Embeddings
    from guardtrain.heads.artifact import KeptHead
    from guardtrain.training.pools import Pools

PROBE, TUNED = "linear probe", "tuned"
SHOWN = ("auroc", "f1", "pair_both_right")
_ROWS = 16_384


def comparison(frozen: Pools, tuned: Pools, probe: KeptHead, head: KeptHead) -> pd.DataFrame:
    """Every metric of both heads on every test set, and the difference, as `guardtrain benchmark` has them.

    Intervals of differences are those of 1,000 bootstrap draws of groups, the same images for both heads: they are for
    other test images, not for other training images, for there is one run of each.

    Args:
        frozen, tuned: pools of the same data under the frozen and the tuned encoder.
        probe, head: trained on either.
    """
    import pandas as pd

    from guardtrain.benchmarks.effectiveness import Entrant, How, difference_rows, evaluate, metric_rows, tidy

    frames = []
    for test, part in frozen.tests.items():
        judged = _judged(test, part, tuned.tests[test], probe, head)
        one = evaluate(judged, [Entrant(PROBE), Entrant(TUNED)], How())
        frames.append(tidy([*metric_rows(one), *difference_rows(one)]))
    return pd.concat(frames, ignore_index=True)


def _judged(test: str, frozen: Embeddings, tuned: Embeddings, probe: KeptHead, head: KeptHead) -> Judged:
    """Both heads' judgements of the images that both encoders could read, unsafe from a probability of a half on."""
    from guardtrain.benchmarks.slices import Judged

    place = {str(name): row for row, name in enumerate(tuned.records.ids)}
    rows = np.array([k for k, name in enumerate(frozen.records.ids) if str(name) in place], dtype=np.int64)
    same = np.array([place[str(frozen.records.ids[k])] for k in rows], dtype=np.int64)
    sides = ((probe, frozen, rows), (head, tuned, same))
    probabilities = np.stack([_probabilities(one, part, at) for one, part, at in sides])
    return Judged(test, (PROBE, TUNED), frozen.records.take(rows), probabilities, probabilities >= 0.5)


def _probabilities(head: KeptHead, part: Embeddings, rows: np.ndarray) -> np.ndarray:
    import torch

    blocks = [np.asarray(part.matrix[rows[i : i + _ROWS]], np.float32) for i in range(0, len(rows), _ROWS)]
    found = [head.probabilities(torch.from_numpy(block), part.spec).numpy() for block in blocks]
    return np.concatenate(found).astype(np.float64)


def comparison_text(frame: pd.DataFrame) -> str:
    """The comparison as a table for a terminal.

    Args:
        frame: of `comparison`.
    """
    from guardtrain.benchmarks.measures import METRICS
    from guardtrain.benchmarks.slices import ALL
    from guardtrain.benchmarks.tables import find, is_better, value_cell

    own = frame[(frame["category"] == ALL) & (frame["source"] == ALL) & (frame["judged_on"] == ALL)]
    lines = [("test set", "metric", PROBE, TUNED, "difference", "")]
    for test in dict.fromkeys(own["data"]):
        for metric in SHOWN:
            rows = own[(own["data"] == test) & (own["metric"] == metric)]
            change = find(rows, kind="difference")
            if change is None:
                continue
            both = (value_cell(find(rows, kind="metric", guard=name)).main for name in (PROBE, TUNED))
            better = is_better(change)
            word = "no difference shown" if better is None else "better" if better else "worse"
            lines.append((test, METRICS[metric], *both, str(value_cell(change, sign=True)), word))
    about = (
        "  Brackets: 95 % intervals for other test images (bootstrap of groups, the same for both). For other\n"
        "  training images: -m mixture.seed=0,1,2"
    )
    title = "The tuned encoder against the frozen one's linear probe, on the same images"
    return "\n".join([title, *text_table(lines, left=range(len(lines[0]))), about])
