"""`runtime_env`: what the processes of a job, a task or an actor find around them: variables, folder, modules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

from ..exceptions import InputError, InputTypeError, nearest

_KEYS = ("env_vars", "working_dir", "py_modules", "excludes")
_INSTALLED = "workers run the driver's interpreter with what is installed there. Install it before you start the driver"
# What Ray knows beside these, and what to do here.
_INSTEAD = {
    **dict.fromkeys(("pip", "uv", "conda"), _INSTALLED),
    **dict.fromkeys(("container", "image_uri"), "start the driver inside the container; its workers live there too"),
    "py_executable": "workers run the driver's interpreter. Start the driver with the one that you want",
    "java_jars": "there are no Java workers",
    "worker_process_setup_hook": "call the hook in the actor's constructor, or first thing in the task",
    "config": "nothing is installed, so there is nothing to configure. Leave it out",
    "nsight": "run the profiler inside the task, or attach it to the worker's pid",
}


class RuntimeEnv(dict[str, Any]):
    """Surroundings of worker processes; wherever a `runtime_env` is taken, a dict with these keys does too.

    Tasks and actors inherit the surroundings of whoever starts them: their own keys replace inherited ones, `env_vars`
    are merged name by name. A worker is only ever used for one set of surroundings.

    Args:
        env_vars: variables of the process, set before its interpreter starts. "$NAME" and "${NAME}" in a value stand
            for the variable of that name that the worker would have without them.
        working_dir: a local folder. Workers run in a copy of it and import from there. It is copied when it is first
            used (`init`, or the first call of a remote function or class), so later edits don't matter.
        py_modules: packages (folders), modules (.py, .zip or .whl files) or imported modules that workers can import;
            copied as `working_dir` is.
        excludes: what not to copy, in the syntax of .gitignore, whose files count too.

    Raises:
        InputError: unknown key or bad value, such as a folder that isn't there.
    """

    def __init__(
        self,
        *,
        env_vars: Mapping[str, str] | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        py_modules: Sequence[str | os.PathLike[str] | ModuleType] | None = None,
        excludes: Sequence[str] | None = None,
        **unknown: Any,
    ) -> None:
        for key in unknown:
            raise InputError(
                f"runtime_env: {key!r} is not supported: {_INSTEAD[key]}"
                if key in _INSTEAD
                else f"runtime_env: unknown key {key!r}. {nearest(key, _KEYS)}"
            )
        checked = {
            "env_vars": _check_variables(env_vars),
            "working_dir": None if working_dir is None else _check_folder(working_dir),
            "py_modules": [_path_of(entry) for entry in _check_list("py_modules", py_modules)],
            "excludes": [_check_pattern(pattern) for pattern in _check_list("excludes", excludes)],
        }
        super().__init__({key: value for key, value in checked.items() if value})
        #: For engines: what they have made of it; they set and read it.
        self.prepared: Any = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RuntimeEnv:
        """Return a checked environment; InputError if it is not one."""
        if isinstance(given, RuntimeEnv):
            return given
        if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
            raise InputTypeError(f"runtime_env={given!r:.80}: want a dict with the keys {', '.join(_KEYS)}")
        return cls(**given)

    @classmethod
    def found(cls, content: Mapping[str, Any]) -> RuntimeEnv:
        """Return an environment that is in force, such as a worker's: nothing of it is checked again."""
        return _rebuild({key: value for key, value in content.items() if value})

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise InputError("a RuntimeEnv cannot be changed, since workers may run with it. Make another one")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> Any:
        return _rebuild, (dict(self),)


def _rebuild(checked: dict[str, Any]) -> RuntimeEnv:
    env = RuntimeEnv()
    dict.update(env, checked)
    return env


def _check_variables(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping | None):
        raise InputTypeError(f"runtime_env: env_vars={given!r:.80}: want a dict of names and values")
    for name, value in (given or {}).items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InputError(f"runtime_env: env_vars has the name {name!r:.80}: want text without '=' and '\\0'")
        if not isinstance(value, str):
            wanted = f"want text, such as {str(value)!r:.80}"
            raise InputTypeError(f"runtime_env: env_vars[{name!r}]={value!r:.80}: {wanted}")
        if "\0" in value:
            raise InputError(
                f"runtime_env: env_vars[{name!r}]={value!r:.80}: no variable can have a '\\0'. Leave it out, or encode "
                "the value, such as in base64"
            )
    return dict(given or {})


def _check_list(key: str, given: Any) -> list[Any]:
    if isinstance(given, str) or not isinstance(given, Sequence | None):
        raise InputTypeError(f"runtime_env: {key}={given!r:.80}: want a list")
    return list(given or ())


def _check_pattern(pattern: Any) -> str:
    if not isinstance(pattern, str):
        raise InputTypeError(f"runtime_env: excludes has {pattern!r:.80}: want patterns as in .gitignore")
    return pattern


def _local(key: str, given: Any) -> str:
    if not isinstance(given, str | os.PathLike):
        raise InputTypeError(f"runtime_env: {key}={given!r:.80}: want a path")
    path = os.fspath(given)
    if "://" in path:
        raise InputError(f"runtime_env: {key}={path!r}: only local paths are supported. Download it first")
    return os.path.abspath(os.path.expanduser(path))


def _check_folder(given: Any) -> str:
    path = _local("working_dir", given)
    if not os.path.isdir(path):
        what = "is not a folder" if os.path.exists(path) else "does not exist"
        raise InputError(f"runtime_env: working_dir={os.fspath(given)!r}: {path} {what}")
    return path


def _path_of(entry: Any) -> str:
    """Return where a module lies: a package's folder, or a file."""
    if isinstance(entry, ModuleType):
        folders = list(getattr(entry, "__path__", ()))
        source = folders[0] if folders else getattr(entry, "__file__", None)
        if source is None:
            raise InputError(f"runtime_env: py_modules has {entry!r}, which has no file to copy")
        return os.path.abspath(source)
    path = _local("py_modules", entry)
    if not os.path.exists(path):
        raise InputError(f"runtime_env: py_modules has {os.fspath(entry)!r}: {path} does not exist")
    if not os.path.isdir(path) and not path.endswith((".py", ".zip", ".whl", ".so")):
        raise InputError(
            f"runtime_env: py_modules has {os.fspath(entry)!r}: want a package's folder or a .py, .zip or .whl file"
        )
    return path
