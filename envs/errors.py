"""What can go wrong with an environment.

    InputError                     (shoal.runtime) a setting that cannot work
    ├── EnvContractError           the environment breaks gymnasium's contract; the message names field, value and bound
    └── SpaceMismatchError         a policy was made for other spaces than the environment has; both are named
    RuntimeError
    ├── ReplayMismatchError        an environment that was deterministic came out different when it was replayed
    └── EnvTimeoutError            a step, a reset or a constructor has not returned in time
    UserWarning
    ├── EnvContractWarning         nothing that keeps a training from running, but probably not meant
    └── RecoveryWarning            after a lost worker or a resume, episodes will not continue exactly

An exception raised by the environment's own code keeps its type; a note (PEP 678) says where it happened.
"""

from ..runtime import InputError


class EnvContractError(InputError):
    """The environment breaks the contract between environment and framework; the message says where and how."""


class SpaceMismatchError(InputError):
    """A policy was made for other spaces than those of the environment that it is to act in; the message names both."""


class ReplayMismatchError(RuntimeError):
    """An episode replayed from its seed and actions did not lead to the recorded observation."""


class EnvTimeoutError(RuntimeError):
    """A call into an environment took longer than the time limit; the message says which, and how to repeat it."""


class EnvContractWarning(UserWarning):
    """Something about the environment that is probably not meant, though a training can run with it."""


class RecoveryWarning(UserWarning):
    """The environment cannot be put back exactly where it was, so a recovery loses its episode in progress."""
