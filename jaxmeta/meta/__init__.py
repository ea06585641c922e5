"""Gradient-based meta-learning: learn the start from which a task is learned."""
