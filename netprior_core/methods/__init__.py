"""Reconstruction methods. One file per family; a new file here registers itself."""

from netprior_core.methods.base import AnyMethod, Method
from netprior_core.settings import discover

discover(__name__)

__all__ = ["AnyMethod", "Method"]
