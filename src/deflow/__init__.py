"""DeFlow: offline reinforcement learning with flow policies."""
