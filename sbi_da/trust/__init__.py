"""Whether an object looks like the simulations, and whether its surveys agree: see :class:`~sbi_da.trust.reference.Reference`."""

from sbi_da.trust.learning import TrustTraining, learn_reference
from sbi_da.trust.reference import Reference

__all__ = ["Reference", "TrustTraining", "learn_reference"]
