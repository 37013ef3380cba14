"""Trainings in which rollout workers and learner do not wait for each other: decided, recorded, replayed."""
