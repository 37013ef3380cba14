"""What all engines share: the nouns that programs hold, and the protocol that an engine is."""
