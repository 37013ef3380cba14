"""Surroundings of workers: made ready where a task or actor is started, entered by its worker before anything else."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import NoReturn

import msgspec

from ...core.runtime_env import RuntimeEnv
from ..protocol import messages as m
from ..protocol.local_sockets import SocketNames
from .packages import copy_package

# What a fresh interpreter runs: what it needs to know comes on its standard input, unlike arguments not for all to see.
_BOOT = (
    "import json, sys; settings = json.load(sys.stdin); sys.path[:] = settings['sys_path']; "
    "from importlib import import_module; import_module(settings['module']).main(settings)"
)


class Environments:
    """The surroundings that this process has, and those of what it starts.

    Args:
        folder: where copies of folders and modules go.
        current: this process's own, which its tasks and actors inherit; of a driver: what `init` was given.
    """

    def __init__(self, folder: str, current: m.Environment | None) -> None:
        self.current = current
        self._folder = folder

    def of(self, own: RuntimeEnv | None) -> m.Environment | None:
        """Return the surroundings of a task or actor whose options say `own`, with copies made on first use.

        Raises:
            RuntimeEnvSetupError: a folder or module cannot be copied.
        """
        if not own:
            return self.current
        if own.prepared is None or own.prepared[0] is not self:
            own.prepared = (self, self._prepare(own))
        environment: m.Environment = own.prepared[1]
        return environment

    def _prepare(self, own: RuntimeEnv) -> m.Environment:
        inherited = self.current or m.Environment(b"", {}, None, [])
        excludes = own.get("excludes", ())
        working_dir, paths = inherited.working_dir, inherited.paths
        if "working_dir" in own:
            working_dir = copy_package(own["working_dir"], self._folder, excludes)
        if "py_modules" in own:
            copies = [copy_package(path, self._folder, excludes, below=True) for path in own["py_modules"]]
            paths = [
                os.path.join(copy, os.path.basename(source)) if source.endswith((".zip", ".whl")) else copy
                for copy, source in zip(copies, own["py_modules"], strict=True)
            ]
        content = ({**inherited.env_vars, **own.get("env_vars", {})}, working_dir, paths)
        digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).digest()
        return m.Environment(digest, *content)


def enter(environment: m.Environment) -> None:
    """Make this fresh worker live in its surroundings; its variables are set already.

    Raises:
        SystemExit: they are not there; what is printed says which.
    """
    folders = [environment.working_dir] if environment.working_dir is not None else []
    for path in [*folders, *environment.paths]:
        if not os.path.exists(path):
            raise SystemExit(f"shoal: the copy {path} of a folder or module of the runtime_env is gone")
    if environment.working_dir is not None:
        os.chdir(environment.working_dir)
    searched = [entry for entry in environment.env_vars.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = [*folders, *environment.paths, *searched]


def exec_worker(names: SocketNames, message: m.Fork) -> NoReturn:
    """Execute a fresh interpreter that becomes the worker.

    Libraries read variables such as OMP_NUM_THREADS when they are loaded, and the interpreter reads its own when it
    starts: in a fork of a process that has loaded them, they would come too late.
    """
    assert message.environment is not None
    settings = {
        "sys_path": sys.path,
        "module": f"{__package__.rpartition('.')[0]}.worker.worker_process",
        "names": msgspec.to_builtins(names),
        "fork": msgspec.msgpack.encode(message).hex(),
    }
    memory = os.memfd_create("shoal-start")
    with open(memory, "wb", closefd=False) as file:
        file.write(json.dumps(settings).encode())
    os.lseek(memory, 0, os.SEEK_SET)
    os.dup2(memory, 0)
    os.close(memory)
    expanded = {name: os.path.expandvars(value) for name, value in message.environment.env_vars.items()}
    os.execve(sys.executable, [sys.executable, "-c", _BOOT], os.environ | expanded)  # noqa: S606
