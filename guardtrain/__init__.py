"""Train image-safety guards on frozen embeddings and measure how many labels they need."""

__version__ = "0.1.0"
