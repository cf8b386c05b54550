"""Environments: making them, stepping many at once in worker processes, and filming one.

Nothing here imports jax: worker processes import these modules and stay small.
"""
