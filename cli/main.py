"""The command `shoal`.

    shoal train ALGORITHM ENV [flags]     shoal evaluate RUN [flags]     shoal serve RUN [flags]
    shoal record RUN|ENV [flags]          shoal fit ALGORITHM TABLE [flags]
    shoal verify RUN [flags]              shoal diff RUN RUN             shoal replay RUN --episode N
    shoal doctor RUN                      shoal plot RUN… [flags]        shoal generate RUN --prompt TEXT [flags]
    shoal algorithms [ALGORITHM]     shoal envs [WORD]     shoal check ENV
    shoal status     shoal list WHAT      shoal memory     shoal story ID     shoal timeline OUT.json
    shoal node --join HOST:PORT [flags]

Exit codes: 0 success · 2 bad input, told in one message · 130 stopped by Ctrl-C or SIGTERM · 141 nobody reads the
output any more (a training has saved a checkpoint by then) · 1 anything else.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module, metadata

from ..runtime import InputError, nearest
from .elsewhere import instead
from .failures import print_failure, root_failure
from .mistakes import sentence
from .output import end_output, flush, is_lost, take_any_text
from .session import started_early

_COMMANDS = {
    "train": "train a policy and write a run folder",
    "fit": "fit boosted trees or a network to a table and write a run folder",
    "evaluate": "run episodes with a trained policy and print its mean return",
    "record": "record episodes of a policy, or of random play, as a Minari dataset",
    "verify": "execute iterations of a run once more, and compare hashes with those that it recorded",
    "replay": "play one episode of a training once more, and film it",
    "diff": "name the first iteration in which two runs are different, and what of it",
    "doctor": "say where the time of a run went, and what would make it faster",
    "plot": "compare runs, or groups of seeds, in one picture",
    "serve": "serve a trained policy over HTTP",
    "generate": "answer prompts by a language model",
    "algorithms": "list which algorithm works with which spaces, memories and action masks",
    "envs": "list the environments that can be made here",
    "check": "check that an environment keeps gymnasium's contract",
    "status": "show what a running program does, and why something waits",
    "list": "list its tasks, actors, objects, nodes, workers or waits",
    "memory": "show who holds the memory of its object store",
    "story": "tell the life of one of its tasks, objects or actors",
    "timeline": "write what ran when in it, as a Chrome trace",
    "node": "join a running cluster with this machine",
}


def _help() -> str:
    lines = [f"  {name:<11} {text}" for name, text in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: shoal COMMAND [arguments]",
            "",
            "Reinforcement learning on its own distributed runtime: simulate, train and serve in one program.",
            "",
            "commands:",
            *lines,
            "",
            "shoal COMMAND --help tells the flags of a command; shoal --version the version.",
            "",
            "example:",
            "  shoal train ppo CartPole-v1 --total-timesteps 300000 --stop-return 475 --run-dir runs/cartpole",
            "  shoal evaluate runs/cartpole",
            "  shoal serve runs/cartpole --replicas 2",
        ]
    )


def _unknown(command: str) -> str:
    is_flag = command.startswith("-")
    otherwise = "The command comes first: shoal COMMAND [flags]." if is_flag else nearest(command, _COMMANDS)
    answer = sentence(instead("", command)) or otherwise
    return f"unknown {'flag' if is_flag else 'command'} {command!r}. {answer} See `shoal --help`"


def _dispatch(arguments: Sequence[str]) -> int:
    if len(arguments) > 1 and arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"shoal {metadata.version('shoal')}")
        return 0
    command = arguments[0]
    if command not in _COMMANDS:
        raise InputError(_unknown(command))
    with started_early(command, arguments[1:]):
        # By name, so that one command does not load what only another one needs.
        run: Callable[[Sequence[str]], int] = import_module(f".{command}", __package__).run
        return run(arguments[1:])


def _told(arguments: Sequence[str]) -> int:
    """Run a command; tell what failed, and return the exit code."""
    try:
        return _dispatch(arguments)
    except SystemExit as end:  # --help has printed what it had to
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:  # the last resort: told, and turned into an exit code
        if is_lost(error):
            raise
        failure = root_failure(error)
        if isinstance(failure, InputError):
            print(f"error: {failure}", file=sys.stderr)
            return 2
        print_failure(failure)
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: what follows `shoal`; default: those of this process.
    """
    take_any_text()
    try:
        code = _told(sys.argv[1:] if arguments is None else arguments)
        flush()
    except OSError as error:
        if not is_lost(error):
            raise
        code = end_output(error)
    return code


if __name__ == "__main__":
    sys.exit(main())
