"""How much an audit measures."""

from __future__ import annotations

from dataclasses import dataclass

from guardtrain.errors import ConfigError


@dataclass
class AuditSettings:
    """How an audit measures.

    Args:
        max_images: images a readout uses, files of each part that are looked at, and pairs the pair measurements use;
            more are drawn from.
        max_compared: images of each part that are compared for duplicates, and images in all whose labels are read;
            more are drawn from.
        folds: of the cross-validation.
        permutations: of the property over groups, what "not readable" looks like.
        replicates: of the bootstrap.
        duplicate_cosine: from which cosine on two images count as near duplicates.
        attribute: the column between whose values gaps are looked for, where there is one.
        seed: of all draws; the same seed gives the same audit.
    """

    max_images: int = 2000
    max_compared: int = 20_000
    folds: int = 5
    permutations: int = 20
    replicates: int = 1000
    duplicate_cosine: float = 0.999
    attribute: str = "attribute"
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"max_images": 100, "max_compared": 1, "folds": 2, "permutations": 1, "replicates": 100, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {bound}.")
        if not 0 < self.duplicate_cosine < 1:
            raise ConfigError(f"duplicate_cosine is {self.duplicate_cosine}; it must lie between 0 and 1.")
