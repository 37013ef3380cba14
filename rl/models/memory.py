"""Memories: what an agent keeps of earlier observations of its episode.

    step     features [B, F], memory → output [B, H], next memory                      in rollouts, one step at a time
    unroll   features [S, L, F], memory before each sequence → outputs [S, L, H]       in the learner

A memory is a dict of tensors [B, …] by name; all zeros is that of an episode's beginning. Both ways give the same
numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...runtime import InputError
from .architecture import MemoryChoice
from .encoders import own_module


class Memory(nn.Module):
    """Base of memories; `features` is the width H of what they give, `inputs` that of what they take."""

    features: int

    def initial(self, rows: int) -> Any:
        """The memory of `rows` episodes that begin."""
        raise NotImplementedError

    def step(self, features: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """One step."""
        raise NotImplementedError

    def unroll(self, features: Tensor, memory: Any, starts: Tensor) -> Tensor:
        """All steps of sequences; where `starts` [S, L] is true an episode begins, and the memory with it."""
        outputs = []
        for t in range(features.shape[1]):
            output, memory = self.step(features[:, t], forget(memory, starts[:, t]))
            outputs.append(output)
        return torch.stack(outputs, 1)


def forget(memory: Any, ended: Tensor) -> Any:
    """The memory with nothing of the rows [B] bool that are true."""
    return {name: leaf * ~ended.reshape(-1, *(1,) * (leaf.ndim - 1)) for name, leaf in memory.items()}


class LSTM(Memory):
    """Long short-term memory of `units` (Hochreiter & Schmidhuber, 1997)."""

    def __init__(self, inputs: int, units: int = 64) -> None:
        super().__init__()
        self.cell, self.features = nn.LSTMCell(inputs, units), units
        _orthogonal_cell(self.cell)

    def initial(self, rows: int) -> Any:
        """Output and cell, [rows, units] each."""
        zeros = self.cell.weight_ih.new_zeros(rows, self.features)
        return {"output": zeros, "cell": zeros}

    def step(self, features: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """The next output is what is seen of it."""
        output, cell = self.cell(features, (memory["output"], memory["cell"]))
        return output, {"output": output, "cell": cell}


class GRU(Memory):
    """Gated recurrent units (Cho et al., 2014, arXiv 1406.1078)."""

    def __init__(self, inputs: int, units: int = 64) -> None:
        super().__init__()
        self.cell, self.features = nn.GRUCell(inputs, units), units
        _orthogonal_cell(self.cell)

    def initial(self, rows: int) -> Any:
        """[rows, units]."""
        return {"output": self.cell.weight_ih.new_zeros(rows, self.features)}

    def step(self, features: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """The output is the memory."""
        output = self.cell(features, memory["output"])
        return output, {"output": output}


class Transformer(Memory):
    """Attention over the last `window` steps of the episode (Vaswani et al., 2017, arXiv 1706.03762, with the norm
    before each block): `layers` blocks of `heads` heads, `units` wide. Each step's window is encoded for itself, so it
    makes no difference at which step a sequence begins.
    """

    def __init__(self, inputs: int, units: int = 64, heads: int = 4, layers: int = 1, window: int = 16) -> None:
        super().__init__()
        self.features, self.window, self.inputs = units, window, inputs
        self.embed = nn.Linear(inputs, units)
        self.position = nn.Parameter(torch.randn(window, units) * 0.02)
        self.blocks = nn.ModuleList(_Block(units, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(units)

    def initial(self, rows: int) -> Any:
        """The features of the last window − 1 steps, and which of them there are."""
        past = self.position.new_zeros(rows, self.window - 1, self.inputs)
        return {"past": past, "there": self.position.new_zeros(rows, self.window - 1)}

    def step(self, features: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Attend from this step to those before."""
        seen = torch.cat([memory["past"], features.unsqueeze(1)], 1)
        there = torch.cat([memory["there"], torch.ones_like(memory["there"][:, :1])], 1)
        return self._attend(seen, there), {"past": seen[:, 1:], "there": there[:, 1:]}

    def unroll(self, features: Tensor, memory: Any, starts: Tensor) -> Tensor:
        """All steps at once: the window of each step is one row."""
        sequences, length, inputs = features.shape
        seen = torch.cat([memory["past"], features], 1)
        there = torch.cat([memory["there"], torch.ones_like(features[..., 0])], 1)
        # Number of the episode that each step belongs to; what lies before the sequence is of its first one, unless
        # that begins here.
        episode = torch.cat([torch.zeros_like(memory["there"]), starts.float().cumsum(1)], 1)
        windows = seen.unfold(1, self.window, 1).movedim(-1, 2).reshape(-1, self.window, inputs)
        own = episode[:, self.window - 1 :].unsqueeze(-1)
        alike = there.unfold(1, self.window, 1) * (episode.unfold(1, self.window, 1) == own)
        return self._attend(windows, alike.reshape(-1, self.window)).reshape(sequences, length, -1)

    def _attend(self, seen: Tensor, there: Tensor) -> Tensor:
        tokens = self.embed(seen) + self.position
        for block in self.blocks:
            tokens = block(tokens, there.bool())
        return self.norm(tokens[:, -1])


class _Block(nn.Module):
    def __init__(self, units: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(units), nn.LayerNorm(units)
        self.qkv, self.out = nn.Linear(units, 3 * units), nn.Linear(units, units)
        self.up, self.down = nn.Linear(units, 2 * units), nn.Linear(2 * units, units)

    def forward(self, tokens: Tensor, there: Tensor) -> Tensor:
        rows, steps, units = tokens.shape
        q, k, v = (
            part.reshape(rows, steps, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.before(tokens)).chunk(3, -1)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(units // self.heads)
        causal = torch.ones(steps, steps, dtype=torch.bool, device=tokens.device).tril()
        # A step that is not there sees itself alone, so that no row of weights is empty.
        itself = torch.eye(steps, dtype=torch.bool, device=tokens.device)
        allowed = (there[:, None, None, :] & causal) | itself
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
        tokens = tokens + self.out((weights @ v).transpose(1, 2).reshape(rows, steps, units))
        return tokens + self.down(self.up(self.between(tokens)).relu())


_MEMORIES: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "transformer": Transformer}


def make_memory(chosen: MemoryChoice, inputs: int) -> Memory | None:
    """The memory of a model on features of width `inputs`; None where there is none.

    A class of the user's is called with that width and `memory_kwargs`; it derives from `Memory`.
    """
    if chosen.memory == "none":
        return None
    if ":" in chosen.memory:
        own = own_module(chosen.memory, "memory", inputs, **chosen.memory_kwargs)
        if not isinstance(own, Memory):
            raise InputError(f"memory {chosen.memory!r} is no shoal.rl.Memory: derive the class from it")
        return own
    made: Memory = _MEMORIES[chosen.memory](inputs, **chosen.memory_kwargs)
    return made


def _orthogonal_cell(cell: Any) -> None:
    for name, parameter in cell.named_parameters():
        if name.startswith("weight"):
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)
