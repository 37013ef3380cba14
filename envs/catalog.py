"""What environments there are for this Python: those that can be made here, and what the others need."""

import contextlib
import importlib
from dataclasses import dataclass

import gymnasium
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from .agents import installed_games
from .atari import PLAIN, PREPROCESSED
from .language import task_ids
from .packages import install_line, is_installed, missing_for, registering_modules
from .registration import registered


@dataclass(frozen=True)
class Listed:
    """An environment's entry in a catalog.

    Attributes:
        id: what to train with.
        source: the package that it comes from, "registered" for those of `register`.
        needs: the command that installs what it lacks, or what to use instead; "" if it can be made here.
        agents: of several agents, how they act: "together" (PettingZoo's parallel API) or "in turns" (AEC); else "".
    """

    id: str
    source: str
    needs: str = ""
    agents: str = ""


def catalog(word: str = "") -> list[Listed]:
    """Return the environments whose id or package contains a word, whatever its case, sorted by package and id.

    Packages known to register environments are imported first where they are installed; of those that are not, there
    is one entry each, which says how to install them.
    """
    absent = []
    for module in registering_modules():
        if not is_installed(module):
            absent.append(Listed(f"those of {module}", module, install_line(module)))
            continue
        with contextlib.suppress(ImportError):  # of a version that does not go with this gymnasium
            importlib.import_module(module)
    found = [*(Listed(name, "registered") for name in registered()), *absent]
    for spec in gymnasium.registry.values():
        listed = _listed(spec)
        found.append(listed)
        if spec.id.startswith(PLAIN):
            needs = "" if is_installed("cv2") else install_line("cv2")
            found.append(Listed(PREPROCESSED + spec.id.removeprefix(PLAIN), listed.source, needs))
    found += _of_texts()
    found += _of_several_agents()
    wanted = word.casefold()
    return sorted(
        (listed for listed in found if wanted in listed.id.casefold() or wanted in listed.source.casefold()),
        key=lambda listed: (listed.source, listed.id),
    )


def _of_texts() -> list[Listed]:
    lacking = {each: "" if is_installed(each) else install_line(each) for each in ("reasoning_gym", "vaderSentiment")}
    needs = {name: lacking["vaderSentiment"] for name in task_ids() if name.startswith("sentiment")}
    found = [Listed(name, "texts", needs.get(name, "")) for name in task_ids()]
    return [*found, Listed("reasoning_gym/chain_sum and others", "texts", lacking["reasoning_gym"])]


def _of_several_agents() -> list[Listed]:
    found = [] if is_installed("mpe2") else [Listed("those of mpe2", "mpe2", install_line("mpe2"))]
    for game in installed_games():
        lacking = missing_for(game.entry_point)
        source, needs = game.entry_point.partition(".")[0], install_line(lacking) if lacking else ""
        found.append(Listed(game.id, source, needs, "in turns" if game.turns else "together"))
    return found


def _listed(spec: GymnasiumSpec) -> Listed:
    point = spec.entry_point
    module = point.partition(":")[0] if isinstance(point, str) else getattr(point, "__module__", "")
    source = ".".join(module.split(".")[:3]).removeprefix("gymnasium.envs.") if module else "unknown"
    if source.startswith("gymnasium") or "." in source:
        source = module.partition(".")[0]
    if source == "gymnasium":  # functions that refuse, and say why
        return Listed(spec.id, source, _instead(spec))
    lacking = missing_for(point) if isinstance(point, str) else None
    return Listed(spec.id, source, install_line(lacking) if lacking else "")


def _instead(spec: GymnasiumSpec) -> str:
    versions = [
        other.version or 0
        for other in gymnasium.registry.values()
        if (other.namespace, other.name) == (spec.namespace, spec.name)
    ]
    stem = spec.id.rpartition("-v")[0]
    return f"superseded by {stem}-v{max(versions)}" if max(versions) > (spec.version or 0) else install_line("shimmy")
