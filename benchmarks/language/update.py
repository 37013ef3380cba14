"""Time of an update of GRPO (advantages, log-probabilities, loss, optimizer, metrics), against the plain torch loop.

    python benchmarks/language/update.py [--rounds 15]

The rival is written as scripts are: a transformer of `nn.Linear` layers of the same sizes, one `torch.optim.Adam`,
`zero_grad`, `backward`, `clip_grad_norm_`. Both have one thread and learn from the same 512 answers of 16 to a prompt,
with 2 epochs of 4 minibatches, as `copy-4` does. Rounds alternate, and the order within a pair of them; printed are the
medians of both, and the median of the ratios of pairs.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Text
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from shoal import GRPO, GRPOConfig, runtime
from shoal.rl import Batch, Clock, Learner, ModelSpec
from shoal.rl.language.samples import Samples

ROWS, PER_PROMPT, MINIBATCH, EPOCHS = 512, 16, 128, 2
LENGTH, PROMPT = 12, 6
WIDTH, HEADS, LAYERS, HIDDEN, VOCABULARY = 64, 4, 2, 176, 12


class Block(nn.Module):
    """Attention with rotary positions, then SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(WIDTH, HIDDEN, bias=False) for _ in range(2))
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        normed = self.first(x)
        q, k, v = (layer(normed).view(*x.shape[:2], HEADS, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))

        def turned(y: Tensor) -> Tensor:
            one, two = y.chunk(2, -1)
            return torch.cat([one * cosines - two * sines, one * sines + two * cosines], -1)

        attended = scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + self.o(attended.transpose(1, 2).flatten(2))
        normed = self.second(x)
        return x + self.down(silu(self.gate(normed)) * self.up(normed))


class Plain(nn.Module):
    """The model of a script."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH)
        angles = torch.arange(LENGTH)[:, None] * 10_000 ** (-torch.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS))
        self.cosines, self.sines = angles.cos(), angles.sin()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cosines, self.sines)
        return self.norm(x) @ self.embedding.weight.T


class Script:
    """The loop of a script."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.columns, self.model = columns, Plain()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-6)

    def update(self) -> float:
        """Two epochs of minibatches; the mean loss."""
        tokens = torch.as_tensor(self.columns["tokens"]).long()
        mask, old = (torch.as_tensor(self.columns[name]) for name in ("mask", "log_probs"))
        rewards = torch.as_tensor(self.columns["rewards"]).view(-1, PER_PROMPT)
        spread = rewards.std(1, keepdim=True) + 1e-6
        advantages = ((rewards - rewards.mean(1, keepdim=True)) / spread).flatten()
        told = []
        for _ in range(EPOCHS):
            for index in torch.randperm(ROWS).split(MINIBATCH):
                logits = self.model(tokens[index])[:, :-1]
                log_probs = logits.log_softmax(-1).gather(-1, tokens[index][:, 1:, None]).squeeze(-1)
                here = mask[index][:, 1:].float()
                ratio = (log_probs - old[index][:, 1:]).exp()
                gain = advantages[index][:, None]
                each = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
                loss = ((each * here).sum(1) / here.sum(1)).mean()
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                told.append(loss.item())
        return sum(told) / len(told)


def answers() -> dict[str, np.ndarray]:
    """Samples that might have been drawn by a new model."""
    drawn = np.random.default_rng(0)
    mask = np.zeros((ROWS, LENGTH), np.bool_)
    mask[:, PROMPT : PROMPT + 5] = True
    near = np.float32(-np.log(VOCABULARY - 3))
    return {
        "tokens": drawn.integers(3, VOCABULARY, (ROWS, LENGTH)).astype(np.int32),
        "mask": mask,
        "log_probs": np.where(mask, near, 0).astype(np.float32),
        "sampled_log_probs": np.where(mask, near, 0).astype(np.float32),
        "entropies": np.where(mask, -near, 0).astype(np.float32),
        "rewards": drawn.random(ROWS).astype(np.float32),
        "cut": np.zeros(ROWS, np.bool_),
        "solved": np.zeros(ROWS, np.bool_),
        "prompts": np.arange(ROWS) // PER_PROMPT,
    }


def ours(columns: dict[str, np.ndarray]) -> Callable[[], Any]:
    """GRPO's update on a learner."""
    space = Text(4, charset="abcdefgh")
    kwargs = {"tokenizer": "characters", "context": 16, "width": WIDTH, "heads": HEADS, "layers": LAYERS}
    learner = Learner(ModelSpec("language_model", space, space, kwargs | {"hidden": HIDDEN}), seed=0, device="cpu")
    config = GRPOConfig(batch_size=MINIBATCH, n_epochs=EPOCHS, samples=PER_PROMPT, learning_rate=1e-6, max_new_tokens=6)
    GRPO.prepare(learner, config)

    def update() -> dict[str, float]:
        model = learner.model
        sha256 = model.layout.sha256(model.get_weights())
        rollout = Samples.side_by_side([Samples(Batch(columns), Batch({}), learner.iteration, weights_sha256=sha256)])
        told = GRPO.update(learner, rollout, config, Clock(0, 1))
        learner.iteration += 1
        return told

    return update


def main() -> None:
    """Run the pair and print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of measurements")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    runtime.init(engine="serial")
    columns = answers()
    pair = ours(columns), Script(columns).update
    times = []
    for step in (*pair, *pair):
        step()  # the first ones are slower
    for index in range(flags.rounds):
        measured = {}
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            started = time.process_time()
            pair[which]()
            measured[which] = time.process_time() - started
        times.append((measured[0], measured[1]))
    own, other = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(one / two for one, two in times)
    print(f"update of {ROWS} answers: shoal {own * 1e3:.0f} ms, script {other * 1e3:.0f} ms: {ratio:.2f} of its time")


if __name__ == "__main__":
    main()
