"""Simulators that own their loop: they connect, ask for actions, and report what came of them.

simulator ──gRPC──▶ SimulatorServer ──▶ SimulatorHub ◀── who takes turns: a training's rollouts, or a served policy
(client.py)          (server.py)     (hub.py)
                                         └── Sessions (sessions.py): the state machine, without I/O
"""

from .client import EpisodeLostError, ServerGoneError, SimulatorClient, SimulatorEpisode, SimulatorError
from .endpoint import Endpoint
from .environment import EXTERNAL, External, external_env
from .hub import SimulatorHub
from .refusal import Refusal
from .server import SimulatorServer
from .sessions import SimulatorAnswer, SimulatorTransition, SimulatorTurn
from .values import to_row

__all__ = [
    "EXTERNAL",
    "Endpoint",
    "EpisodeLostError",
    "External",
    "Refusal",
    "ServerGoneError",
    "SimulatorAnswer",
    "SimulatorClient",
    "SimulatorEpisode",
    "SimulatorError",
    "SimulatorHub",
    "SimulatorServer",
    "SimulatorTransition",
    "SimulatorTurn",
    "external_env",
    "to_row",
]
