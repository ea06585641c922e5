"""Reinforcement learning on the manipulation tasks."""

import jaxmeta.manipulation  # noqa: F401 - before Brax: see there
