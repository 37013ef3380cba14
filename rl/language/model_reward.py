"""A model of another run as a reward function: how likely a language model finds an answer, or what a model of a table
predicts of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime import InputError
from ..lazy import load, losses, torch
from ..runs.checkpoint import find_checkpoint, holds_model, read_files, read_policy, run_of
from ..supervised.saved import model_from_files
from .tokens import ANSWER, BEGIN, END

Features = Callable[[str, str], Mapping[str, Any]]


class ModelReward:
    """A reward function of prompt and answer, for `Prompts` and `RewardActor`.

        reward = [(1.0, right), (0.05, RewardActor(ModelReward("runs/pretrained")))]

    Args:
        run: folder of a run, checkpoint or policy. Of a language model the reward is the mean log-probability of the
            answer's tokens, its end included, after the prompt (0 at most). Of a model of a table (`shoal fit`) it is
            the quantity predicted, or the probability of the last of its classes.
        features: of prompt and answer, by column; a model of a table needs it, a language model takes none.

    An answer is judged alone, so its reward depends on no other. Raises InputError if there is no such model, or
    `features` are missing or superfluous; a call, ValueError for a text that has no room in the model's context.
    """

    def __init__(self, run: str | Path, features: Features | None = None) -> None:
        self.__name__ = f"ModelReward({Path(run).name})"
        self._features, self._run = features, str(run)
        self._model: Any = None
        self._saved: Any = None
        self._files: dict[str, bytes] = {}
        if holds_model(run):
            self._files = read_files(run)
            model_from_files(self._files, str(run), run_of(find_checkpoint(run)))
        else:
            self._saved = read_policy(run)
            if not getattr(self._saved.spec, "is_language", False):
                raise InputError(f"{str(run)!r} holds a policy that answers no texts: it cannot judge them")
        if (features is None) == bool(self._files):
            kind, wants = ("a model of a table", "needs") if self._files else ("a language model", "takes no")
            raise InputError(f"{str(run)!r} holds {kind}, which {wants} features (a function of prompt and answer)")

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_model": None}

    def load(self) -> None:
        """Make the model; else the first call does."""
        if self._model is not None:
            return
        if self._files:
            self._model = model_from_files(self._files, self._run)
            return
        policy = load("policy_of")(self._saved.spec)
        policy.set_weights(self._saved.weights_for(policy.model.layout), 0)
        self._model = policy.model

    def __call__(self, prompt: str, answer: str) -> float:
        """What the answer is worth."""
        self.load()
        return self._predicted(prompt, answer) if self._files else self._likelihood(prompt, answer)

    def _predicted(self, prompt: str, answer: str) -> float:
        assert self._features is not None
        model = self._model
        columns = {name: np.array([value]) for name, value in self._features(prompt, answer).items()}
        found = model.predict(model.schema.encode(columns, "features of an answer"))[0]
        return float(found if model.schema.classes is None else found[-1])

    def _likelihood(self, prompt: str, answer: str) -> float:
        model = self._model
        before = [BEGIN, *model.tokens.encode(prompt), ANSWER]
        ids = [*before, *model.tokens.encode(answer), END]
        if len(ids) > model.context:
            raise ValueError(
                f"prompt and answer have {len(ids)} tokens, but the context of the reward's model has room "
                f"for {model.context}"
            )
        tokens = torch.tensor([ids])
        with torch.inference_mode():
            return float(losses.log_probs_of(model(tokens), tokens)[0, len(before) :].mean())
