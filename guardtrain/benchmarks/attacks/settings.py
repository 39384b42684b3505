"""The settings of `guardtrain attack`: which guards, which attacks, how strong."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from guardtrain.benchmarks.training_images import LEAVE_OUT, require_choice
from guardtrain.errors import ConfigError

NOISE, GRADIENT, EVERYDAY = ("gaussian",), ("fgsm", "pgd", "deepfool"), ("jpeg", "resize", "blur", "crop")
ATTACKS = (*NOISE, *GRADIENT, *EVERYDAY)


@dataclass
class AttackSettings:
    """`guardtrain attack`: how much of its accuracy a guard keeps when images are changed, by malice and by chance.

    Args:
        guards: folders or names on the Hugging Face Hub; one, or a list.
        tests: test sets of the data; null for all.
        point: the operating point that decides; null for each guard's default.
        attacks: of gaussian, fgsm, pgd, deepfool, jpeg, resize, blur, crop; in this order in tables.
        samples: correctly classified images of each test set that are attacked; images that are halves of pairs are
            taken pair by pair.
        training_images: what becomes of images that a guard was trained on: `leave_out`, or `keep`.
        epsilon: of gaussian (standard deviation), fgsm, pgd and deepfool: the largest change of a pixel, where black is
            0 and white 1. (UnsafeBench's published code has the same number on normalised inputs, for CLIP a quarter
            of this: less than one level of a file's 255, and noise of that norm in all.)
        steps: gradients an image, of pgd and deepfool.
        step_size: of pgd; null for 2.5 epsilon / steps, which reaches any corner of the ball from any other.
        restarts: of pgd from a random place; the worst counts, and so does the point of fgsm. 0 starts from the image
            itself.
        norm: of deepfool, what it keeps small: `linf` or `l2`.
        overshoot: of deepfool.
        jpeg: qualities, whole numbers from 1 to 100.
        resize: shares of width and height.
        blur: standard deviations, as shares of the shorter side.
        crop: shares of width and height that are kept, at a random place.
        block: images that are finished at once; what a crash can cost at most.
        confidence: of the intervals.
        seed: decides which images are attacked, and all draws.
        trusted_heads: dotted names of head definitions outside guardtrain that may be imported.
        checkpoint: where the encoder's weights lie; null for where they lay when the guards were made.
        device: auto, cpu, cuda, cuda:1, mps.
        batch_size: images a gradient; null for 64 on a GPU, on the CPU what its caches hold.
        threads: of the processor; null for all that this process may run on.
        progress: a bar; null shows one on a terminal.
        out: folder of tables and figure; started again there, what is done is not done again.
        data_dir: where data configs look for files; default: `$GUARDTRAIN_DATA`, else `data`.
    """

    guards: Any = MISSING
    tests: list[str] | None = None
    point: str | None = None
    attacks: list[str] = field(default_factory=lambda: list(ATTACKS))
    samples: int = 500
    training_images: str = LEAVE_OUT
    epsilon: float = 0.01
    steps: int = 100
    step_size: float | None = None
    restarts: int = 1
    norm: str = "linf"
    overshoot: float = 0.02
    jpeg: list[float] = field(default_factory=lambda: [75, 50, 25, 10])
    resize: list[float] = field(default_factory=lambda: [0.5, 0.25])
    blur: list[float] = field(default_factory=lambda: [0.005, 0.01, 0.02])
    crop: list[float] = field(default_factory=lambda: [0.9, 0.7, 0.5])
    block: int = 32
    confidence: float = 0.95
    seed: int = 0
    trusted_heads: list[str] = field(default_factory=list)
    checkpoint: str | None = None
    device: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    progress: bool | None = None
    out: str = MISSING
    data_dir: str = MISSING

    def __post_init__(self) -> None:
        require_choice(self.training_images)
        if unknown := [name for name in self.attacks if name not in ATTACKS]:
            raise ConfigError(f"attacks has '{unknown[0]}'; allowed: {', '.join(ATTACKS)}.")
        if not self.attacks:
            raise ConfigError(f"attacks is empty; name some of {', '.join(ATTACKS)}.")
        if self.norm not in ("linf", "l2"):
            raise ConfigError(f"norm is '{self.norm}'; allowed: linf, l2.")
        for name, least in (("samples", 1), ("steps", 1), ("restarts", 0), ("block", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        for name in ("batch_size", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1, or null.")
        if not 0 < self.epsilon <= 1:
            raise ConfigError(f"epsilon is {self.epsilon:g}; it must be above 0 and at most 1, where white is 1.")
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise ConfigError(f"step_size is {self.step_size:g}; it must be above 0 and at most 1, or null.")
        if not 0 <= self.overshoot < math.inf:
            raise ConfigError(f"overshoot is {self.overshoot:g}; it must be 0 or more.")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence:g}; it must lie between 0 and 1.")
        for name, weakest, strongest, what in (
            ("jpeg", 1, 100, "a whole quality from 1 to 100"),
            ("resize", 0.01, 4, "a share from 0.01 to 4"),
            ("blur", 0, 1, "a share of the shorter side, 0 to 1"),
            ("crop", 0.01, 1, "a share from 0.01 to 1"),
        ):
            for value in getattr(self, name):
                part = name == "jpeg" and not float(value).is_integer()
                if not weakest <= value <= strongest or part:
                    raise ConfigError(f"{name} has {value:g}; each must be {what}.")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ConfigError(f"{name} has the same strength twice.")

    @property
    def guard_paths(self) -> list[str]:
        """Where the guards are.

        Raises:
            ConfigError: none, or what is no path.
        """
        given = self.guards if isinstance(self.guards, list | tuple) else [self.guards]
        if not given or not all(isinstance(one, str) and one for one in given):
            raise ConfigError(f"guards is {self.guards!r}; name at least one guard: guards=[DIR, org/name, …].")
        return [str(one) for one in given]

    @property
    def step(self) -> float:
        """Change of a pixel in a step of PGD; Madry et al. take 2.5 ε / steps, too."""
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    @property
    def warning(self) -> str | None:
        """Say what makes the attacks weaker than they are said to be; None where nothing does."""
        reach = self.steps * self.step
        if "pgd" not in self.attacks or reach >= 2 * self.epsilon * (1 - 1e-9):
            return None
        return (
            f"{self.steps} steps of {self.step:g} move a pixel by {reach:g} at most: PGD cannot cross the ball of ε = "
            f"{self.epsilon:g} around the image, which is {2 * self.epsilon:g} wide, and what survives it says little. "
            f"Leave step_size out, or give at least step_size={2.5 * self.epsilon / self.steps:.3g}."
        )

    def plan(self) -> list[Attack]:
        """The attacks in the order of tables, each with one strength.

        >>> [attack.label for attack in AttackSettings(attacks=["jpeg", "pgd"], jpeg=[75]).plan()]
        ['PGD', 'JPEG 75']
        """
        planned: list[Attack] = []
        for name in ATTACKS:
            if name not in self.attacks:
                continue
            if name in EVERYDAY:
                planned += [Attack(name, float(strength)) for strength in getattr(self, name)]
                continue
            options: dict[str, Any] = {}
            if name == "pgd":
                options = {"steps": self.steps, "step_size": self.step, "restarts": self.restarts, "fgsm": True}
            if name == "deepfool":
                options = {"steps": self.steps, "norm": self.norm, "overshoot": self.overshoot}
            planned.append(Attack(name, self.epsilon, options))
        return planned


@dataclass(frozen=True)
class Attack:
    """One attack at one strength.

    Args:
        name: one of `ATTACKS`, or `none`: the images as they are.
        strength: ε, a JPEG quality, or a share.
        options: what else decides the outcome.
    """

    name: str
    strength: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def on_pixels(self) -> bool:
        """Whether it changes the encoder's input; else the image before preprocessing."""
        return self.name in NOISE + GRADIENT

    @property
    def needs_gradient(self) -> bool:
        """Whether it follows the guard's gradient."""
        return self.name in GRADIENT

    @property
    def label(self) -> str:
        """For tables and figures."""
        titles = {"fgsm": "FGSM", "pgd": "PGD", "deepfool": "DeepFool", "gaussian": "Gaussian noise", "none": "none"}
        if self.name in titles:
            return titles[self.name]
        if self.name == "jpeg":
            return f"JPEG {self.strength:g}"
        shown = {"resize": "resized to", "blur": "blurred by", "crop": "cropped to"}[self.name]
        return f"{shown} {100 * self.strength:g} %"


UNCHANGED = Attack("none")
