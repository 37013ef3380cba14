"""How the next token is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .tokens import Tokens


@dataclass(frozen=True)
class Sampling:
    """Settings of a generation."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Only this many of the most likely tokens; 0: all."""
    top_p: float = 1.0
    """Only the most likely tokens that together are as likely as this, the one that reaches it included; 1: all."""
    stop: tuple[str, ...] = ()
    """An answer ends with each of these texts, too."""

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens [R] for `logits` [R, V] and `noise` [R] float64 in [0, 1), by the inverse of the distribution
        function; their log-probabilities under the softmax of logits / temperature, and under what is left of it; and
        the entropy of that softmax."""
        if self.temperature == 0:
            log_policy = torch.log_softmax(logits, -1)
            chosen = logits.argmax(-1)
            found = log_policy.gather(-1, chosen[:, None])[:, 0]
            return chosen, found, torch.zeros_like(found), _entropy(log_policy)
        log_policy = torch.log_softmax(logits / self.temperature, -1)
        left = self._left(log_policy)
        total = left.double().exp().cumsum(-1)
        chosen = (total <= noise[:, None] * total[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)
        found, sampled = (each.gather(-1, chosen[:, None])[:, 0] for each in (log_policy, left))
        return chosen, found, sampled, _entropy(log_policy)

    def _left(self, log_policy: Tensor) -> Tensor:
        """Log-probabilities [R, V] after top-k and top-p, which sum to 1 again; −∞ of what is not left."""
        left = log_policy
        if 0 < self.top_k < left.shape[-1]:
            smallest = left.topk(self.top_k, -1).values[:, -1:]
            left = left.masked_fill(left < smallest, -torch.inf)
        if self.top_p < 1:
            ordered, order = torch.sort(left, dim=-1, descending=True, stable=True)
            chances = ordered.softmax(-1)
            beyond = chances.cumsum(-1) - chances >= self.top_p
            left = left.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
        return left if left is log_policy else left.log_softmax(-1)

    def stops(self, tokens: Tokens, said: Sequence[int]) -> bool:
        """Whether what was said ends with one of the stop texts."""
        return bool(self.stop) and tokens.decode(said).endswith(self.stop)


def _entropy(log_policy: Tensor) -> Tensor:
    return -(log_policy.exp() * log_policy).sum(-1)
