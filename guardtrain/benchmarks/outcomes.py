"""What became of each guard on each image: a verdict, or why there is none."""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """Whether a guard has a verdict on an image; `word` is what tables call it.

    A guard's figures are of the images that it has a verdict on, whatever other guards have. Images that it was asked
    about in vain (all but `SET_ASIDE`) are missing: they bound its figures. Those set aside are none of its test
    images, such as the ones it was trained on, and bound nothing.
    """

    ANSWERED = 0
    UNDECIDED = 1
    """It said something from which no verdict can be told for certain."""
    REFUSED = 2
    """It, or a filter before it, would not say."""
    NO_ANSWER = 3
    """Nothing came back, after all tries."""
    UNREADABLE = 4
    """The image could not be read."""
    SET_ASIDE = 5

    @property
    def word(self) -> str:
        """In small letters: `no answer`."""
        return self.name.lower().replace("_", " ")
