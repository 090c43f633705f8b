"""Forward models. One file per family; a new file here registers itself."""

from netprior_core.operators.base import AnyOperator, ForwardModel, LinearModel, Operator
from netprior_core.settings import discover

discover(__name__)

__all__ = ["AnyOperator", "ForwardModel", "LinearModel", "Operator"]
