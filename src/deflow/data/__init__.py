"""Datasets: names, loading, own arrays, generation by oracles, statistics."""
