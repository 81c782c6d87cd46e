"""One number per object that says what is to be known of its answer: a sum of the powers of two below."""

from enum import IntFlag

__all__ = ["Flag"]


class Flag(IntFlag):
    """Bits of the column ``flags``."""

    NO_DATA = 1
    """None of its measurements could be used: the posterior is the prior."""
    LEFT_OUT = 2
    """A measurement was left out: no number, an infinity, an error that is not positive, a value outside the survey's valid range."""
    NO_ERROR = 4
    """A value without an error was not used."""
    LIMIT = 8
    """A non-detection was used as a limit."""
    REPEATED = 16
    """Its identifier occurs more than once (in a frame: in its partition): the answers may be of one object, or of several."""

    STRANGE = 32
    """Fewer than one in a thousand simulated objects are as strange (column ``p_all``)."""

    NOBODY = 64
    """It has no identifier, and was not answered; only where rows cannot be set aside."""

    LOW_ESS = 128
    """Few of its refined draws carry the weight (column ``ess``): fewer than half of those asked for, and than a hundred."""

    @property
    def meaning(self) -> str:
        """In a line."""
        return MEANINGS[self]


MEANINGS = {
    Flag.NO_DATA: "none of its measurements could be used: the posterior is the prior",
    Flag.LEFT_OUT: "a measurement was left out: no number, infinite, an error that is not positive, or outside the valid range",
    Flag.NO_ERROR: "a value without an error was not used",
    Flag.LIMIT: "a non-detection was used as a limit",
    Flag.STRANGE: "fewer than one in a thousand simulated objects are as strange: see p_all and the other p-values",
    Flag.LOW_ESS: "few of its draws explain what was measured: see ess; where it is 0 there is no answer",
    Flag.NOBODY: "it has no identifier and was not answered",
    Flag.REPEATED: "its identifier occurs more than once",
}
