"""Objects that share parameters: a cluster's age, metallicity, distance, extinction from the posteriors of its members."""

from sbi_da.cluster.combination import combine
from sbi_da.cluster.result import Cluster

__all__ = ["Cluster", "combine"]
