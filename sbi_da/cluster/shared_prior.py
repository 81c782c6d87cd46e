r"""The marginal prior of the parameters that the members of a cluster share, and coordinates in which it is N(0, I).

In the order of the prior each law may depend on earlier parameters. Where those of the shared parameters depend on shared ones only, their
marginal prior is the product of their laws, and their normal scores are functions of them alone: the limits that age and metallicity set
to a member's mass are part of its own prior given them. Where one depends on a parameter that members have for themselves (extinction
grows with distance, and distance is not shared), a member's extinction would say something of its distance and of nothing else: this is
refused.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sbi_da.distributions import Law
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.prior import Prior

__all__ = ["SharedPrior"]


class SharedPrior:
    """Marginal prior of some parameters.

    Args:
        prior: of all parameters.
        names: those shared.

    Attributes:
        names: those shared, in the prior's order.
        coordinates: their prior, which maps them to scores and back.

    Raises:
        SbiDaError: no names, unknown ones, or one whose prior depends on a parameter that is not shared.
    """

    def __init__(self, prior: Prior, names: Sequence[str]) -> None:
        if not names:
            raise SbiDaError(f"cluster: name at least one shared parameter of {', '.join(prior.names)}")
        for name in names:
            if name not in prior.names:
                raise UnknownNameError("shared parameter", name, prior.names)
        self.prior = prior
        self.names = [name for name in prior.names if name in names]
        for name in self.names:
            needed = [*prior.laws[name].given, *(prior.limits[name].given if name in prior.limits else ())]
            missing = [other for other in needed if other not in names]
            if missing:
                raise SbiDaError(f"cluster: the prior of {name} depends on {', '.join(missing)}: share {', '.join(missing)} as well")
        limits = {name: prior.limits[name] for name in self.names if name in prior.limits}
        self.coordinates = Prior({name: prior.laws[name] for name in self.names}, limits)

    def log_ratio(self, laws: Mapping[str, Law], phi: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log of another prior over this one; ``laws`` replace those of shared parameters. Shape ``(point,)``.

        Raises:
            SbiDaError: a law of a parameter that is not shared, or one that reaches beyond the one it replaces.
        """
        for name in laws:
            if name not in self.names:
                raise UnknownNameError("shared parameter", name, self.names, "whose prior can be replaced here")
        return self.coordinates.replaced(laws).log_prob(phi) - self.coordinates.log_prob(phi)
