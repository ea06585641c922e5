"""Fifty manipulation tasks, after Meta-World, as pure functions."""
