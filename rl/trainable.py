"""What every training has, of a policy or a fit of a table: a seed, settings that are checked, actors that end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from ..runtime import InputError


class Trainable(ABC):
    """A training, with its settings in `run`; as a context manager it ends its actors."""

    run: Any
    preset: Mapping[str, Any]
    """Settings that the preset chose."""

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if name not in own and any(hasattr(own.get(part), name) for part in ("config", "run")):
            kind = type(self).__name__
            raise AttributeError(
                f"{name} cannot be set: a training keeps the settings that it was made with. Go on with another by "
                f"{kind}.load(FOLDER, {name}=…), from what save(FOLDER) wrote, or make a new one: {kind}(…, {name}=…)"
            )
        super().__setattr__(name, value)

    @property
    def seed(self) -> int:
        """Run seed."""
        return int(self.run.seed)

    @property
    def workers(self) -> int:
        """Number of workers asked for."""
        return int(self.run.workers)

    def require(self, condition: bool, name: str, value: Any, allowed: str) -> None:
        """Raise InputError naming the setting, its value and what is allowed, unless `condition`."""
        if not condition:
            source = f". It comes from the preset: choose {name}, or preset='none'" if name in self.preset else ""
            raise InputError(f"{name} is {value!r}, but must be {allowed}{source}")

    @abstractmethod
    def close(self) -> None:
        """End this training's actors. The runtime goes on."""

    @property
    @abstractmethod
    def env_id(self) -> str:
        """Id of the environment, or what stands in its place."""

    @property
    @abstractmethod
    def timesteps(self) -> int:
        """Steps done so far."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.env_id!r}, seed={self.seed}, timesteps={self.timesteps})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        kind = type(self).__name__
        raise TypeError(
            f"a training by {kind} is neither copied nor pickled, since it has processes of its own: save(FOLDER) "
            f"keeps it, {kind}.load(FOLDER) goes on; a policy can be both"
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
