"""What a learner says that must be brought back."""


class StateLostError(RuntimeError):
    """The learner doesn't hold the state of the iteration that it was asked to go on from."""
