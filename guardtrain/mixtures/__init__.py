"""Which images a run sees: splits, orderings, budgets, ratios, arms and controls, as pure index arithmetic."""

from guardtrain.mixtures.counting import ARMS, CONTROLS, OF_REAL, ROUNDINGS, counts
from guardtrain.mixtures.mixing import Mixer, Mixture, mix
from guardtrain.mixtures.ordering import order_pairs, order_real, order_unpaired, shuffled_partners
from guardtrain.mixtures.pool import Pool
from guardtrain.mixtures.splitting import folds, hold_out
from guardtrain.mixtures.supply import Supply

__all__ = [
    "ARMS",
    "CONTROLS",
    "OF_REAL",
    "ROUNDINGS",
    "Mixer",
    "Mixture",
    "Pool",
    "Supply",
    "counts",
    "folds",
    "hold_out",
    "mix",
    "order_pairs",
    "order_real",
    "order_unpaired",
    "shuffled_partners",
]
