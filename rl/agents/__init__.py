"""Training several agents: which policy acts for whom, and the actors that collect and learn for all of them.

The policies' weights lie in one flat array, as one policy's do: so the driver, its checkpoints and its recovery know
nothing of their number. A rollout is one for each policy, with rows (environment, agent), and each policy has a learner
of its own, in one actor.
"""

from .collect import JointWorker
from .learn import JointLearnerActor
from .mapping import choose_models, initial_weights

__all__ = ["JointLearnerActor", "JointWorker", "choose_models", "initial_weights"]
