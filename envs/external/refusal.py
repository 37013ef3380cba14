"""What a simulator is told when a request cannot be."""


class Refusal(Exception):  # noqa: N818 (it says no; nothing went wrong here)
    """A request is refused, with a gRPC status.

    Attributes:
        code: name of the status, such as "INVALID_ARGUMENT".
        message: what is wrong, and what to do instead.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message
