"""Bringing simulated and real features together."""
