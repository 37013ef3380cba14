"""Search in the space of weights, by what whole episodes of perturbed policies returned; no gradient, no learner."""
