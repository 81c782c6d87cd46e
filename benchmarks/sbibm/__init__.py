"""Tasks with known posteriors on which methods of inference are commonly compared (Lueckmann et al. 2021, arXiv:2101.04653)."""
