"""Adapting to distribution shift with unlabelled data."""
