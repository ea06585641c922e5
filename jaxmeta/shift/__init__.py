"""Adapting to distribution shift with unlabelled data."""

from jaxmeta.shift.streaming import stream as stream
