"""Head definitions: what is trained, or solved, on the frozen embedding."""

from guardtrain.heads.anchors import TextAnchored, TextAnchors, text_anchors
from guardtrain.heads.bank import HeadBank, join_states
from guardtrain.heads.clap import CLAPHead
from guardtrain.heads.direct import DirectHead, HeadData
from guardtrain.heads.gda import GDAHead
from guardtrain.heads.linear import LinearBank, LinearHead
from guardtrain.heads.lp_plus_plus import LPPlusPlusHead
from guardtrain.heads.mlp import MLPBank, MLPHead
from guardtrain.heads.neighbours import NeighboursHead
from guardtrain.heads.pair_direction import PairDirectionHead
from guardtrain.heads.prototypes import PrototypeHead
from guardtrain.heads.ridge import RidgeHead
from guardtrain.heads.tip_adapter import TipAdapterFHead, TipAdapterHead
from guardtrain.heads.zero_shot import ZeroShotHead

__all__ = [
    "CLAPHead",
    "DirectHead",
    "GDAHead",
    "HeadBank",
    "HeadData",
    "LPPlusPlusHead",
    "LinearBank",
    "LinearHead",
    "MLPBank",
    "MLPHead",
    "NeighboursHead",
    "PairDirectionHead",
    "PrototypeHead",
    "RidgeHead",
    "TextAnchored",
    "TextAnchors",
    "TipAdapterFHead",
    "TipAdapterHead",
    "ZeroShotHead",
    "join_states",
    "text_anchors",
]
