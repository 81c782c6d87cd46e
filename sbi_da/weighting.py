"""How a config states the weight of a loss."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sbi_da.alignment.schedule import Fixed, Linear, Ramp, Schedule

__all__ = ["Weighting"]

SCHEDULES: dict[str, type[Schedule]] = {s.kind: s for s in (Fixed, Linear, Ramp)}


class Weighting(BaseModel):
    """How much a loss counts in the course of the training.

    Attributes:
        kind: fixed, linear, or ramp (nothing during ``warmup``, then a rise until ``full``).
        value: the weight in the end.
        warmup: progress, from 0 to 1, at which a ramp begins.
        full: progress at which it ends.
    """

    model_config = ConfigDict(extra="forbid")
    kind: Literal["fixed", "linear", "ramp"] = "ramp"
    value: float = Field(0.5, ge=0)
    warmup: float = Field(0.0, ge=0, le=1)
    full: float = Field(0.3, ge=0, le=1)

    @model_validator(mode="after")
    def _possible(self) -> "Weighting":
        self.build()
        return self

    def build(self) -> Schedule:
        """The schedule."""
        return Ramp(self.value, self.warmup, self.full) if self.kind == "ramp" else SCHEDULES[self.kind](self.value)
