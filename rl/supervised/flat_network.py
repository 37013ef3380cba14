"""Any module as learners need it: what is learned lies flat, what else it holds is seen apart. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime import InputError
from ..models.flat_module import lay_flat


class FlatNetwork:
    """A `module` on `device`; `flat` are its trainable parameters, `gradients` theirs, [size] float32 both.

    Raises InputError if there are none.
    """

    def __init__(self, module: nn.Module, device: str) -> None:
        trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        if not trained:
            raise InputError(
                f"{type(module).__name__} has no parameters that require a gradient: there is nothing to fit"
            )
        self.module = module.to(device)
        _, self.flat, self.gradients = lay_flat(trained, device)
        kept = module.state_dict()
        self._statistics = [name for name, _ in module.named_buffers() if name in kept]

    def arrays(self) -> dict[str, np.ndarray]:
        """All that predicting depends on, by its name in the module: copies."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.module.state_dict().items()}

    def take_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what `arrays` gave."""
        self.module.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})

    def statistics(self) -> dict[str, Tensor]:
        """What the module itself changes when it sees rows, such as a batch normalization's running means: copies."""
        return {name: self.module.get_buffer(name).detach().clone() for name in self._statistics}

    def take_statistics(self, values: Mapping[str, Tensor]) -> None:
        """Take over what `statistics` gave."""
        with torch.no_grad():
            for name, value in values.items():
                self.module.get_buffer(name).copy_(value)


def joined_statistics(each: Mapping[str, Tensor], shares: Tensor) -> dict[str, Tensor]:
    """Statistics after a minibatch of which each shard has seen its rows: their means, weighted by the `shares` [S] of
    the rows; of whole numbers, which count minibatches, the first one's. `each` are [S, …]."""
    return {
        name: torch.tensordot(shares.to(values.dtype), values, 1) if values.is_floating_point() else values[0]
        for name, values in each.items()
    }
