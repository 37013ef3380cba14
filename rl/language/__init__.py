"""Language models: sampled, rewarded, reinforced. Tasks are environments between texts."""
