"""Terms by the names configs use."""

from sbi_da.alignment.adversarial import Adversarial
from sbi_da.alignment.coral import Coral
from sbi_da.alignment.keypoints import KeypointTransport
from sbi_da.alignment.metric_mmd import MetricMMD
from sbi_da.alignment.mmd import MMD, Energy, LaplacianMMD
from sbi_da.alignment.pairs import InfoNCE, PairCosine, PairMean, PairMSE, PairTerm
from sbi_da.alignment.sinkhorn import Sinkhorn
from sbi_da.alignment.term import Term
from sbi_da.alignment.transport import OptimalTransport, SoftMatching

__all__ = ["PAIR_TERMS", "TERMS"]

TERMS: dict[str, type[Term]] = {
    term.kind: term
    for term in (
        Sinkhorn, Energy, MMD, LaplacianMMD, Coral, MetricMMD, OptimalTransport, SoftMatching, KeypointTransport, Adversarial,
    )
}
"""Terms between two sets of features."""
PAIR_TERMS: dict[str, type[PairTerm]] = {term.kind: term for term in (PairMSE, PairCosine, InfoNCE, PairMean)}
"""Terms between rows that belong together."""
