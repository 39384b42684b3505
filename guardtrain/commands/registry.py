"""The commands: each with what it does, in a line. Help, completion and the command line read them; imports nothing."""

from __future__ import annotations

COMMANDS = {
    "curve": "the data-efficiency curve: a grid of mixtures, budgets and seeds → results, statistics, figure",
    "train": "one head on one mixture → the head, its metrics and logs",
    "tune": "hyper-parameters of `train` searched for, many at once → a ranked table, the best head, its guard",
    "finetune": "the encoder tuned on one mixture (LoRA) → an encoder, and on it a head, metrics and a guard",
    "export": "a finished run, or the best of a curve → a guard: calibrated, with thresholds, in one directory",
    "import-guard": "a guard that others published, from its own files → a guard's directory",
    "calibrate": "a guard, and labelled images of yours → the same guard with probabilities and thresholds for them",
    "push": "a guard → a repository on the Hugging Face hub",
    "benchmark": "guards, yours and those of others, on the same images: metrics with intervals, figure, report",
    "attack": "guards under attack and under what images go through daily: robust accuracy with intervals, figure",
    "embed": "images of a source → embeddings on disk (a store)",
    "store": "look at stores of embeddings, verify, append to, merge, filter and deduplicate them",
    "plot": "figures, tables and a report of a curve that is there",
    "results": "any folders of runs and sweeps → one table: filtered, ranked with intervals, exported",
    "plan": "a pilot curve → the seeds, test images and budgets that show a difference",
    "audit": "what tells the label unseen, doubted labels, edits, sources, pools and duplicates in embeddings",
    "predict": "images judged by a guard → answers on the screen, or a table of probabilities and decisions",
    "serve": "a guard as a web service, with a page to drop an image on",
    "scenes": "render the embedded testbed to image files, to look at or to try the sources with",
}

PLAIN_COMMANDS = {  # without a config
    "doctor": "what is installed, which device works, where the caches are, what is missing for what",
    "completion": "what makes TAB complete all this, for bash, zsh and fish",
}

# What a command does that does several things: `guardtrain store verify` is short for `guardtrain store action=verify`.
ACTIONS = {"store": ("info", "verify", "append", "merge", "filter", "dedup")}
