"""Which images a run sees: splits, orderings, budgets, ratios, arms and controls, as pure index arithmetic."""

from guardtrain.mixtures.mixing import ARMS, CONTROLS, ROUNDINGS, Mixer, Mixture, counts, mix
from guardtrain.mixtures.ordering import order_pairs, order_real, order_unpaired
from guardtrain.mixtures.pool import Pool
from guardtrain.mixtures.splitting import folds, hold_out

__all__ = [
    "ARMS",
    "CONTROLS",
    "ROUNDINGS",
    "Mixer",
    "Mixture",
    "Pool",
    "counts",
    "folds",
    "hold_out",
    "mix",
    "order_pairs",
    "order_real",
    "order_unpaired",
]
