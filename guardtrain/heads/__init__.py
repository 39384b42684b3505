"""Head definitions: what is trained on the frozen embedding."""

from guardtrain.heads.bank import HeadBank
from guardtrain.heads.linear import LinearBank, LinearHead
from guardtrain.heads.mlp import MLPBank, MLPHead

__all__ = ["HeadBank", "LinearBank", "LinearHead", "MLPBank", "MLPHead"]
