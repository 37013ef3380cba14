"""Which policy acts for which agent, as the run settings say it, and the models that follow."""

from __future__ import annotations

import fnmatch
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...envs import Inspection, JointSpace, central_space, codec, describe
from ...runtime import InputError, nearest
from ..declaration import Declaration
from ..model_choice import choose_model
from ..models.joint_spec import AnySpec, JointSpec
from ..models.spec import ModelSpec
from ..runs.checkpoint import read_policy
from ..runs.one_policy import one_policy
from ..settings import RunSettings


def choose_models(
    algorithm: type[Declaration], config: Any, found: Inspection, network: Mapping[str, Any], run: RunSettings
) -> tuple[AnySpec, RunSettings]:
    """The model of one agent, or those of several agents' policies; and the settings with the mapping that was found.

    Raises InputError if agents of a policy differ in their spaces, for settings of agents where there is but one, and
    as `choose_model`.
    """
    env_id, normalized = found.spec.id, run.normalizes_observations
    space, actions = found.observation_space, found.action_space
    if not isinstance(space, JointSpace):
        for name in run.says_of_agents:
            raise InputError(
                f"{name} is {getattr(run, name)!r}, but environment {env_id!r} has one agent: leave it out"
            )
        if algorithm.critic_sees(config) != "own":
            raise InputError(f"centralized_critic is set, but environment {env_id!r} has one agent: leave it out")
        return choose_model(algorithm, env_id, space, actions, network, normalized=normalized), run
    critic = algorithm.critic_sees(config)
    mapping = map_agents(run.policies, list(space.agent_spaces))
    spaces = {agent: (own, actions[agent]) for agent, own in space.agent_spaces.items()}  # type: ignore[index]
    models = {}
    for name in dict.fromkeys(mapping.values()):
        own = common_spaces(name, {agent: spaces[agent] for agent, policy in mapping.items() if policy == name})
        made = choose_model(algorithm, env_id, *own, network, normalized=normalized)
        if critic != "own":
            agent = next(agent for agent, policy in mapping.items() if policy == name)
            made = replace(made, kind=f"central_{made.kind}", observation_space=central_space(space, agent))
        models[name] = made
    for setting, names in (("frozen_policies", run.frozen), ("initial_policies", run.initial_policies)):
        for name in names:
            if name not in models:
                raise InputError(f"{setting} names a policy {name!r}, which there is not. {nearest(name, models)}")
    if set(run.frozen) == set(models):
        raise InputError(f"frozen_policies holds all policies, {', '.join(models)}: nothing would be learned")
    if run.league_freq is not None:
        _check_league(algorithm, mapping, network)
    return JointSpec(models, mapping, run.frozen, space.turns, space.state_space), replace(run, policies=mapping)


def _check_league(algorithm: type[Declaration], mapping: Mapping[str, str], network: Mapping[str, Any]) -> None:
    if not algorithm.plays_league:
        raise InputError(f"league_freq is set, but {algorithm.name} does not play in a league: choose one such as ppo")
    if len(set(mapping.values())) > 1 or len(mapping) < 2:
        raise InputError(
            "league_freq is set, but a league is for one policy that all agents share, two at least: leave policies at "
            "'shared'"
        )
    if network.get("memory", "none") != "none":
        raise InputError(
            "league_freq is set, but a policy with a memory does not play in a league: leave one of them out"
        )


def map_agents(given: Any, agents: list[str]) -> dict[str, str]:
    """Policy by agent; `given` is the setting `policies`. InputError if it is none, or says nothing of an agent."""
    if given == "shared":
        return dict.fromkeys(agents, "shared")
    if given == "separate":
        return {agent: agent for agent in agents}
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise InputError(f"policies is {given!r}, which is no JSON: {error}") from None
    if isinstance(given, Mapping):
        return {agent: _by_pattern(given, agent) for agent in agents}
    choose = _imported(given) if isinstance(given, str) and ":" in given else given
    if not callable(choose):
        raise InputError(
            f"policies is {given!r}, but must be 'shared', 'separate', a dict from agents to policies, or a function "
            "(on the command line package.module:function)"
        )
    mapping = {agent: choose(agent) for agent in agents}
    for agent, name in mapping.items():
        if not isinstance(name, str):
            raise InputError(f"the function of policies gave {name!r} for agent {agent!r}, but must give a name")
    return mapping


def _by_pattern(given: Mapping[str, str], agent: str) -> str:
    name = given.get(agent, next((name for key, name in given.items() if fnmatch.fnmatchcase(agent, key)), None))
    if not isinstance(name, str):
        raise InputError(
            f"policies names no policy for agent {agent!r}: {dict(given)!r}; want each agent's, by its name or a "
            f"pattern: {{{agent!r}: 'one', '*': 'other'}}"
        )
    return name


def _imported(path: str) -> Callable[[str], str]:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"policies is {path!r}, which cannot be imported: {error}") from None


def common_spaces(name: str, spaces: Mapping[str, tuple[Any, Any]]) -> tuple[Any, Any]:
    """The spaces that all agents of a policy have; InputError names two that differ."""
    (first, wanted), *others = spaces.items()
    for other, found in others:
        for role, one, two in zip(("observation", "action"), wanted, found, strict=True):
            if codec(one).essence(role) != codec(two).essence(role):  # type: ignore[arg-type]
                raise InputError(
                    f"policy {name!r} would act for {first!r} and {other!r}, but their {role} spaces differ: "
                    f"{describe(one)} and {describe(two)}. Give them policies of their own: policies='separate', or a "
                    "dict from agents to policies"
                )
    return wanted


def initial_weights(spec: JointSpec, run: RunSettings) -> dict[str, np.ndarray]:
    """The weights that policies begin with, by name, flat, of those that `initial_policies` names.

    Raises InputError if there is no such policy, or one that is not between the same spaces or of another network.
    """
    return {name: _read_weights(name, where, spec.policies[name]) for name, where in run.initial_policies.items()}


def _read_weights(name: str, where: str, wanted: ModelSpec) -> np.ndarray:
    folder, _, chosen = where.rpartition(":") if not Path(where).exists() and ":" in where else (where, "", "")
    saved = read_policy(folder)
    several = isinstance(saved.spec, JointSpec) and len(saved.spec.policies) > 1
    one = one_policy(saved, chosen or (name if several else None))
    found = one.spec
    if found != wanted:
        assert isinstance(found, ModelSpec)
        raise InputError(
            f"initial_policies names {where!r} for {name!r}, but that is another model: {found.unlike(wanted)}"
        )
    return one.weights
