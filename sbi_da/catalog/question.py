"""What is asked of every object of a catalogue. Together with the catalogue and the estimator it decides every byte of the answer."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Question"]


class Question(BaseModel):
    """Options of an inference.

    Attributes:
        draws: from the posterior of each object; 0: none, if the estimator's posteriors need none to be summarised.
        seed: of the draws; those of an object depend on it and on the object's identifier only.
        surveys: read only these; all if None.
        id_column: of identifiers; None: the first of the surveys' that has the fewest nulls, else the row number; ``"#row"``: that.
        units: column to unit, in place of what the files state.
        keep: columns to copy to the answer.
        correlations: whether the correlation matrix is wanted.
        refine: rounds in which draws are weighted by the likelihood of the estimator's simulator; 0: none.
        bf16: whether the network encodes in bfloat16, where matrix products allow it.
        kept_draws: how many draws of each quantity to keep, as float16 in units of the standard deviation about the mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    draws: int = Field(100, ge=0)
    seed: int = Field(0, ge=0)
    surveys: tuple[str, ...] | None = None
    id_column: str | None = None
    units: dict[str, str] = {}
    keep: tuple[str, ...] = ()
    correlations: bool = False
    refine: int = Field(0, ge=0)
    bf16: bool = False
    kept_draws: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> "Question":
        if self.draws == 1 or (self.correlations and not self.draws):
            raise ValueError(f"draws: {self.draws} have no {'correlations' if self.correlations else 'standard deviation'}")
        if self.refine and not self.draws:
            raise ValueError("refine: weighs draws, and none are asked for")
        if self.kept_draws > self.draws:
            raise ValueError(f"kept_draws: {self.kept_draws} of {self.draws} draws cannot be kept")
        return self
