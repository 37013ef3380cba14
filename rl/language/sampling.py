"""How the next token is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .tokens import Tokens

COLDEST = 1e-4
"""Logits divided by less can overflow; whoever asks for it means the most likely token."""


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
        """Tokens for `logits` [R, V] and `noise` [R, 1] float64 in [0, 1), by the inverse of the distribution function;
        their log-probabilities under the softmax of logits / temperature, and under what is left of it; and minus the
        entropy of that softmax. All are columns [R, 1]: each view that is not made is a hundredth of a step."""
        if self.temperature in (0, 1):
            log_policy = logits.log_softmax(-1)
        else:
            log_policy = (logits / self.temperature).log_softmax(-1)
        chances = log_policy.exp()
        disorder = (chances * log_policy).sum(-1, keepdim=True)
        if self.temperature == 0:
            chosen = logits.argmax(-1, keepdim=True)
            found = log_policy.gather(-1, chosen)
            return chosen, found, torch.zeros_like(found), disorder
        left = self._left(log_policy)
        total = (chances if left is log_policy else left.exp()).cumsum(-1, dtype=torch.float64)
        chosen = _drawn(total, noise)
        found = log_policy.gather(-1, chosen)
        return chosen, found, found if left is log_policy else left.gather(-1, chosen), disorder

    def _left(self, log_policy: Tensor) -> Tensor:
        """Log-probabilities [R, V] after top-k and top-p, which sum to 1 again; −∞ of what is not left."""
        if self.top_p == 1 and not 0 < self.top_k < log_policy.shape[-1]:
            return log_policy
        settings = torch.full((len(log_policy), 1), self.top_k), torch.full((len(log_policy), 1), self.top_p)
        return left_by(log_policy, *(each.to(log_policy.device) for each in settings)).log_softmax(-1)

    @property
    def longest_stop(self) -> int:
        """The last so many tokens of an answer say whether it ends with a stop text: each is a byte at least, and the
        first ones of a text may be written otherwise than in the middle of one."""
        return 4 + max(len(text.encode()) for text in self.stop)

    def stops(self, tokens: Tokens, said: Sequence[int]) -> bool:
        """Whether what was said ends with one of the stop texts."""
        return bool(self.stop) and tokens.decode(said).endswith(self.stop)


def left_by(log_policy: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """`log_policy` [R, V] with −∞ where each row's `top_k` [R, 1] (0: all) and `top_p` [R, 1] leave nothing; what is as
    likely as the last of top-k stays, too."""
    ordered, order = torch.sort(log_policy, dim=-1, descending=True, stable=True)
    size = log_policy.shape[-1]
    last = torch.where(top_k > 0, top_k, size).clamp(max=size) - 1
    ordered = ordered.masked_fill(ordered < ordered.gather(-1, last), -torch.inf)
    chances = ordered.softmax(-1)
    least = top_p.clamp(min=torch.finfo(top_p.dtype).tiny)  # what is 0 in float32 leaves the most likely one, too
    beyond = (chances.cumsum(-1) - chances >= least) & (top_p < 1)
    return torch.empty_like(ordered).scatter_(-1, order, ordered.masked_fill(beyond, -torch.inf))


def choose(logits: Tensor, noise: Tensor, settings: Sequence[tuple[float, int, float]]) -> tuple[Tensor, Tensor]:
    """Tokens [R] for `logits` [R, V] and `noise` [R] float64 in [0, 1), each row by its own temperature, top-k and
    top-p; and the log-softmax [R, V] of the logits. A row's bits don't depend on other rows' settings."""
    log_policy = torch.log_softmax(logits, -1)
    if set(settings) == {(1.0, 0, 1.0)}:
        return _drawn(log_policy.exp().cumsum(-1, dtype=torch.float64), noise[:, None])[:, 0], log_policy
    temperature, top_k, top_p = (
        torch.tensor(each, device=logits.device)[:, None] for each in zip(*settings, strict=True)
    )
    left = (logits / torch.where(temperature > 0, temperature, 1.0)).log_softmax(-1)
    if any(k > 0 or p < 1 for _, k, p in settings):
        left = torch.where((top_k > 0) | (top_p < 1), left_by(left, top_k, top_p).log_softmax(-1), left)
    chosen = _drawn(left.exp().cumsum(-1, dtype=torch.float64), noise[:, None])[:, 0]
    if any(degree == 0 for degree, _, _ in settings):
        chosen = torch.where(temperature[:, 0] > 0, chosen, log_policy.argmax(-1))
    return chosen, log_policy


def _drawn(total: Tensor, noise: Tensor) -> Tensor:
    """Tokens [R, 1] by the inverse of a distribution function that `total` [R, V] float64 is but for its scale."""
    return torch.searchsorted(total, noise * total[:, -1:], right=True).clamp_(max=total.shape[-1] - 1)
