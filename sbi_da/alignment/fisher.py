r"""Fisher loss: classes of the simulations that are compact and far from each other.

With :math:`c_k` the mean feature of class :math:`k` and :math:`c` the mean of these means,

.. math:: L = \frac{\mathrm{tr}\,S_w}{\mathrm{tr}\,S_b}
    = \frac{\sum_k \sum_{i \in k} \|z_i - c_k\|^2}{\sum_k \|c_k - c\|^2},

as in DeepMerge II (Ciprijanovic et al. 2021, arXiv 2103.01373). The sum over objects makes it grow with the batch; ``balanced``
takes means instead, over the objects of a class and then over classes, so that neither the size of the batch nor the
fractions of the classes matter. The ratio does not change with the scale of the features. A class of one object has no
spread but a mean, and counts as such; an absent class is not there.
"""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import one_hot

from sbi_da.alignment.class_term import Classified, ClassTerm, nothing
from sbi_da.errors import SbiDaError

__all__ = ["Fisher"]

LEAST = 1e-6
"""Of the spread between classes, in units of that within: where class means coincide the ratio stays finite."""


class Fisher(ClassTerm):
    """Scatter within the classes over that between them, of labelled simulated features.

    Args:
        balanced: means over objects and classes instead of sums.
    """

    kind: ClassVar[str] = "fisher"

    def __init__(self, balanced: bool = False) -> None:
        super().__init__()
        self.balanced = balanced

    def forward(
        self,
        simulated: Classified,
        real: Classified,
        views: tuple[Classified, Classified] | None = None,
    ) -> Tensor:
        """The term; zero where fewer than two classes occur.

        Raises:
            SbiDaError: simulated objects without labels.
        """
        if simulated.labels is None:
            raise SbiDaError("fisher: the simulated batch has no labels: train on records that hold the class")
        known = simulated.labels >= 0
        member = one_hot(simulated.labels.clamp_min(0), simulated.classes).to(simulated.features) * known[:, None]
        count = member.sum(0)
        present = count > 0
        if int(present.sum()) < 2:
            return nothing(simulated, real)
        # Differences from the overall mean: the same loss, without the cancellation of large features that hardly differ.
        features = simulated.features - simulated.features.detach().mean(0)
        means = member.T @ features / count.clamp_min(1.0)[:, None]
        squared = (features - member @ means).square().sum(-1) * known
        centre = means[present].mean(0)
        between = (means[present] - centre).square().sum()
        within = squared.sum()
        if self.balanced:
            within = ((member / count.clamp_min(1.0)).T @ squared).sum() / present.sum()
            between = between / present.sum()
        if not float(within.detach()) > 0:  # every class a point: nothing to gain, and nothing to divide by
            return nothing(simulated, real)
        return within / (between + LEAST * within.detach()) + nothing(simulated, real)
