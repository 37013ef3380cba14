"""Networks as a user would write them, named by their import path in tests."""

import numpy as np
import torch
from torch import nn

WIDTH = 8


class Halves(nn.Module):
    """The two halves of a vector, each by a layer."""

    def __init__(self, space, width=WIDTH):
        super().__init__()
        self.features, (size,) = 2 * width, space.shape
        self.left, self.right = nn.Linear(size // 2, width), nn.Linear(size - size // 2, width)

    def forward(self, rows):
        half = self.left.in_features
        return torch.cat([self.left(rows[:, :half]), self.right(rows[:, half:])], -1).relu()


class DrawsElsewhere(Halves):
    """Initial weights of numpy's global generator."""

    def __init__(self, space):
        super().__init__(space)
        with torch.no_grad():
            self.left.weight.copy_(torch.from_numpy(np.random.standard_normal(self.left.weight.shape)))


class WithBuffers(Halves):
    """What is no parameter would reach nobody."""

    def __init__(self, space):
        super().__init__(space)
        self.register_buffer("seen", torch.zeros(1))
