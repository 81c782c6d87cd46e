"""What the figures in the README come from; never imported by the package."""
