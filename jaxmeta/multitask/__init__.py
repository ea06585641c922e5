"""Supervised learning of many tasks at once, without adaptation."""
