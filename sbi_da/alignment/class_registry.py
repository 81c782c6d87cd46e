"""Terms of adapted classifiers by the names configs use."""

from sbi_da.alignment.class_term import ClassTerm
from sbi_da.alignment.clustering import AdaptiveClustering
from sbi_da.alignment.entropy import Entropy
from sbi_da.alignment.fisher import Fisher
from sbi_da.alignment.separation import EntropySeparation

__all__ = ["CLASS_TERMS"]

CLASS_TERMS: dict[str, type[ClassTerm]] = {
    term.kind: term for term in (Fisher, Entropy, AdaptiveClustering, EntropySeparation)
}
"""Terms between two classified batches."""
