"""Reinforcement learning on the manipulation tasks."""
