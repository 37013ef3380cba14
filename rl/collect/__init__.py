"""Collecting rollouts: the rollout worker actor."""
