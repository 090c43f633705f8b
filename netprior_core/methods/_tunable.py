"""What methods share whose settings can be searched on the image that is set up (see ``tuning``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from netprior_core.methods.base import Method
from netprior_core.problem import Problem
from netprior_core.settings import FieldSpec

#: What is tried of a setting: numbers are factors of its value, words are values.
Grid = Sequence[float] | Sequence[str]


class Tunable(Method):
    """A method with a few settings that decide how well it does, so that a search among them is worth its time.

    ``tunable``: by setting, what is tried of it. ``tuned_on`` is the name of the target on which these very settings were searched
    with the truth in sight, "" where they were not: no setting for a person, but a mark that stays until one is changed, or the
    problem is (:meth:`untuned`).
    """

    tunable: ClassVar[Mapping[str, Grid]] = {}

    tuned_on: str = Field("", max_length=100, exclude_if=lambda name: not name)

    @classmethod
    def fields(cls) -> tuple[FieldSpec, ...]:
        """The settings a person can change: not the mark."""
        return tuple(field for field in super().fields() if field.name != "tuned_on")

    def searched(self) -> dict[str, Grid]:
        """The settings to search, without those that mean nothing beside the others as they are, and what is tried of each."""
        meaningless = {f.name for f in self.fields() if f.when is not None and getattr(self, f.when[0]) != f.when[1]}
        return {name: grid for name, grid in self.tunable.items() if name not in meaningless}

    def untuned(self, operator: Any) -> Tunable:
        """For another problem than they were searched on: what was searched as it is by itself, for this operator, and no mark.

        Itself where there is no mark.
        """
        if not self.tuned_on:
            return self
        plain = type(self)(kind=self.kind).suited(operator)
        return self.model_copy(update={**{name: getattr(plain, name) for name in self.tunable}, "tuned_on": ""})

    def written_out(self, problem: Problem) -> Tunable:
        """These settings with the numbers that "from the noise" stands for in this problem, which is one they accept."""
        return self
