"""Learning: the learner actor and its optimizers."""
