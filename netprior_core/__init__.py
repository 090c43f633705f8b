"""NetPrior: image priors for inverse problems, side by side."""

__version__ = "0.1.0"
