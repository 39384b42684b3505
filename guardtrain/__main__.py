"""`python -m guardtrain`: the same as the command `guardtrain`."""

from guardtrain.cli import run

run()
