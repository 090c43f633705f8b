"""NetPrior: image priors for inverse problems, side by side."""

from netprior_core.memory import keep_buffers

__version__ = "0.1.0"

keep_buffers()
