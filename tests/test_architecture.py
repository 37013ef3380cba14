"""The shape of the code, as a test: layers, cycles, sizes, documentation and names."""

import ast
import gc
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

from shoal.runtime.core.current import Backend
from shoal.runtime.core.engine import Engine
from shoal.runtime.native.engine import NativeEngine
from shoal.runtime.serial.engine import SerialEngine

ROOT = Path(__file__).parent.parent
LAYERS = ["runtime", "envs", "data", "rl", "algorithms", "cli"]
# The rooms of runtime/, and of the native engine, lowest first. Those side by side know nothing of each other.
ROOMS = {
    "runtime": [{"exceptions"}, {"core"}, {"native", "serial", "ray"}, {"api", "state"}, {"util"}],
    "runtime/native": [{"protocol"}, {"store"}, {"process"}, {"node"}, {"driver"}, {"engine", "start"}, {"worker"}],
}
WRITTEN = {path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")}
GENERATED = {path for path in WRITTEN if path.name.endswith("_pb2.py")}
FILES = sorted(WRITTEN - GENERATED)
# What stays for now, and may only shrink: an entry that is not needed any more fails the tests, as a new one does.
# How many of our own modules a file imports by `import_module`, past the rule that imports stand at the top.
IMPORTED_BY_CALL = {
    "cli/main.py": 1,
    "rl/lazy.py": 1,
    "runtime/api/engines.py": 1,
    "runtime/core/held_signals.py": 1,
    "runtime/core/lazy_exports.py": 1,
    "runtime/native/node/forkserver.py": 2,
    "runtime/native/start.py": 1,
}
# In how many places of each layer an attribute that begins with "_" is used of another object than self.
USED_FROM_OUTSIDE = {"runtime": 40, "envs": 1, "data": 3, "rl": 6}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
# What engines need not say themselves.
DEFAULTS = {"abandon", "guard_signals", "is_cancelled", "note", "preload", "running", "value"}
BANNED_WORDS = re.compile(r"\b(raylet|trainer|sampler|env runner)\b", re.IGNORECASE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def for_each_file(check):
    """Make one test per folder of a check of one file: there are so many that a test of each takes seconds."""

    def test(layer):
        for path in FILES:
            if path.is_relative_to(ROOT / layer):
                check(path)

    return pytest.mark.parametrize("layer", LAYERS)(test)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Return all nodes of a file; to walk through it once takes as long as to read it."""
    return list(ast.walk(tree(path)))


def called(call: ast.Call) -> str:
    """Return the last part of the name of what is called; "" without one."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


@pytest.fixture(autouse=True, scope="module")
def no_collections_meanwhile():
    """Spare half a million nodes, which hold no cycles, collections: three quarters of the time went to them."""
    gc.disable()
    yield
    gc.enable()
    for cached in (tree, nodes, own_imports, classes):
        cached.cache_clear()


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def target_of(node: ast.ImportFrom, path: Path) -> str:
    """Return the module that a relative import names, from the repository's root."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *(node.module or "").split(".")]).strip(".")


MODULES = {module_of(path) for path in FILES}


@cache
def own_imports(path: Path) -> list[tuple[ast.ImportFrom, str, bool, bool]]:
    """Return (node, module, only for types, inside a function) of the imports of our own modules."""
    found = []

    def visit(node: ast.AST, type_only: bool, late: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom) and child.level:
                target = target_of(child, path)
                # `from .. import envs` names a folder itself.
                for where in [target] if target else [alias.name for alias in child.names]:
                    found.append((child, where, type_only, late))
            elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # no expression holds an import
                for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                visit(child, type_only or for_types, late or function)

    visit(tree(path), False, False)
    return found


def modules_imported(path: Path, also_for_types: bool = False) -> set[str]:
    """Return our modules that importing this one imports at once, or that it names for its types or in functions."""
    result = set()
    for node, target, type_only, late in own_imports(path):
        if (type_only or late) and not also_for_types:
            continue
        for alias in node.names:
            full = f"{target}.{alias.name}"
            result.add(full if full in MODULES else target)
    return result


@for_each_file
def test_imports_follow_the_layers(path):
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    for node, target, _, _ in own_imports(path):
        other = target.split(".")[0]
        assert LAYERS.index(other) <= layer, f"{name(path)}:{node.lineno} imports {target}, which is a higher layer"
        assert (LAYERS[layer], other) != ("data", "envs"), f"{name(path)}:{node.lineno}: data knows nothing of envs"
        if other != path.relative_to(ROOT).parts[0]:
            assert "." not in target, f"{name(path)}:{node.lineno} imports from inside another folder: {target}"
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            assert not private, f"{name(path)}:{node.lineno} imports private names {private}"


@pytest.mark.parametrize("folder", ROOMS)
def test_the_rooms_of_the_runtime_are_layers(folder):
    package, rooms = folder.replace("/", ".") + ".", ROOMS[folder]
    height = {room: level for level, side_by_side in enumerate(rooms) for room in side_by_side}
    inside = {path for path in FILES if path.is_relative_to(ROOT / folder)} - {ROOT / folder / "__init__.py"}
    room_of = {path: path.relative_to(ROOT / folder).with_suffix("").parts[0] for path in inside}
    assert set(room_of.values()) == set(height)
    for path, room in room_of.items():
        for target in modules_imported(path, also_for_types=True):
            if not f"{target}.".startswith(package):
                continue
            other = target.removeprefix(package).partition(".")[0]
            assert other == room or height.get(other, len(rooms)) < height[room], (
                f"{name(path)} imports {target}: of {folder}/ a file may know its own room and lower ones: {rooms}"
            )


@for_each_file
def test_no_import_by_another_name(path):
    for node in nodes(path):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for imported in names:
            first = imported.split(".")[0]
            assert first not in {*LAYERS, "shoal"}, (
                f"{name(path)}:{node.lineno} imports {imported}: inside the source imports are relative, "
                "another name would make a second copy of the module"
            )


@for_each_file
def test_own_modules_are_imported_at_the_top(path):
    late = [node.lineno for node, _, _, late in own_imports(path) if late]
    assert not late, f"{name(path)}:{late} imports our own modules in a function"


def imports_by_call(nodes: Iterable[ast.AST]) -> list[int]:
    """Return the lines that import a module relative to a package: one of our own, by another way than `import`."""
    named = [(node, called(node)) for node in nodes if isinstance(node, ast.Call)]
    return sorted(
        call.lineno
        for call, function in named
        if function == "__import__"
        or (function in ("import_module", "import_whole") and len(call.args) + len(call.keywords) > 1)
    )


def test_own_modules_are_imported_by_call_no_more_than_today():
    found = {name(path): lines for path in FILES if (lines := imports_by_call(nodes(path)))}
    counts = {file: len(lines) for file, lines in found.items()}
    assert counts == IMPORTED_BY_CALL, (
        f"imported by a call: {found}. Import at the top; shorten the list if there is less"
    )


def knots(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the largest sets of modules of which each reaches each other."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for other in graph.get(ahead.pop(), set()) - seen:
                seen.add(other)
                ahead.append(other)
        return seen

    reached = {module: reach(module) for module in graph}
    in_circle = [module for module in graph if module in reached[module]]
    return {frozenset(other for other in reached[module] if module in reached.get(other, ())) for module in in_circle}


def test_modules_do_not_know_each_other_in_a_circle_for_types_either():
    graph = {module_of(path): modules_imported(path, also_for_types=True) - {module_of(path)} for path in FILES}
    found = [sorted(knot) for knot in knots(graph)]
    assert not found, f"modules import each other, for types at least: {found}. Cut it, not by a late import"


def used_from_outside(nodes: Iterable[ast.AST]) -> list[str]:
    """Return the uses of another object's private attributes, of whatever it is an object; a library's count, too."""
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in nodes
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("__")
        and ast.unparse(node.value) not in ("self", "cls", "super()", "os", "sys")
    ]


def test_private_attributes_are_used_from_outside_no_more_than_today():
    for layer in LAYERS:
        files = [path for path in FILES if path.is_relative_to(ROOT / layer)]
        found = {name(path): used for path in files if (used := used_from_outside(nodes(path)))}
        count = sum(map(len, found.values()))
        assert count == USED_FROM_OUTSIDE.get(layer, 0), (
            f"{layer} uses private attributes from outside in {count} places, not {USED_FROM_OUTSIDE.get(layer, 0)}: "
            f"{found}. Give the class a method; lower the number if there are fewer"
        )


def test_what_the_rules_for_imports_find():
    assert used_from_outside(ast.walk(ast.parse("self._a; other._b; self.c._d; cls.__name__"))) == [
        "1: other._b",
        "1: self.c._d",
    ]
    assert knots({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}
    assert imports_by_call(
        ast.walk(ast.parse("import_module('.x', p)\nimportlib.import_module(users)\n__import__('x')"))
    ) == [
        1,
        3,
    ]


@pytest.mark.parametrize("engine", [NativeEngine, SerialEngine])
def test_what_an_engine_does_is_written_out(engine):
    """So that go-to-definition leads from the public API into an engine: no method is bound when it starts."""
    for wanted, member in {**vars(Backend), **vars(Engine)}.items():
        if not wanted.startswith("_") and callable(member):
            where = next(cls for cls in engine.__mro__ if wanted in vars(cls))
            assert where not in (Backend, Engine) or wanted in DEFAULTS, f"{engine.__name__}.{wanted} is not written"


def only_declares(module: ast.Module) -> bool:
    """Return whether a file holds nothing but imports and classes of fields, such as messages: a list may be long."""
    told = [node for node in module.body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)]
    fields = [part for node in told if isinstance(node, ast.ClassDef) for part in node.body]
    return all(isinstance(node, ast.ClassDef) for node in told) and all(
        isinstance(part, ast.AnnAssign | ast.Expr) for part in fields
    )


@for_each_file
def test_files_and_functions_are_short(path):
    limit = 170 if path.parent == ROOT / "algorithms" else 400
    lines = len(path.read_text().splitlines())
    assert lines <= limit or only_declares(tree(path)), f"{name(path)} has {lines} lines, more than {limit}"
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{name(path)}:{node.lineno} {node.name} has {length} lines"


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """Return all our classes by name; of some names there are several."""
    found: dict[str, list[ast.ClassDef]] = {}
    for node in (node for path in FILES for node in nodes(path) if isinstance(node, ast.ClassDef)):
        found.setdefault(node.name, []).append(node)
    return found


def told_by_bases(cls: ast.ClassDef, known: Mapping[str, list[ast.ClassDef]]) -> set[str]:
    """Return the methods that bases of a class document, as `inspect.getdoc` and editors find it."""
    told: set[str] = set()
    for base in cls.bases:
        for found in known.get(ast.unparse(base).partition("[")[0].rpartition(".")[2], ()):
            if found is not cls:
                told |= {part.name for part in found.body if isinstance(part, FUNCTIONS) and ast.get_docstring(part)}
                told |= told_by_bases(found, known)
    return told


def is_told_by_a_message(function: ast.FunctionDef, known: Mapping[str, list[ast.ClassDef]]) -> bool:
    """Return whether this handles a message of just its name, `on_reply` a `m.Reply`, which says what has happened."""
    said = function.args.args[-1].annotation if function.args.args else None
    message = "" if said is None else ast.unparse(said).removeprefix("m.")
    return function.name == "on" + re.sub("(?=[A-Z])", "_", message).lower() and message in known


@for_each_file
def test_public_names_are_documented(path):
    module = tree(path)
    assert ast.get_docstring(module), f"{name(path)} has no docstring"

    def check(node: ast.AST, prefix: str) -> None:
        told = told_by_bases(node, classes()) if isinstance(node, ast.ClassDef) else ()
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | FUNCTIONS) or child.name.startswith("_") or child.name in told:
                continue
            decorators = {ast.unparse(decorator).split(".")[-1] for decorator in child.decorator_list}
            if not decorators & {"setter", "overload"} and not (
                isinstance(child, ast.FunctionDef) and is_told_by_a_message(child, classes())
            ):
                assert ast.get_docstring(child), f"{name(path)}:{child.lineno} {prefix}{child.name} has no docstring"
            if isinstance(child, ast.ClassDef):
                check(child, f"{child.name}.")

    check(module, "")


def test_what_is_told_elsewhere():
    """A method's docstring is its base's, a handler's is its message's; neither by likeness of names alone."""
    source = """
class Base:
    def said(self): "Said."
    def unsaid(self): ...
class Derived(other.Base[int]): ...
class Alone: ...
class Reply: ...
def on_reply(peer, message: m.Reply): ...
def on_answer(peer, message: m.Reply): ...
def on_unknown(peer, message: m.Unknown): ...
"""
    parts = ast.parse(source).body
    known = {part.name: [part] for part in parts if isinstance(part, ast.ClassDef)}
    assert told_by_bases(known["Derived"][0], known) == {"said"}
    assert not told_by_bases(known["Alone"][0], known)
    assert [part.name for part in parts if isinstance(part, FUNCTIONS) and is_told_by_a_message(part, known)] == [
        "on_reply"
    ]


@for_each_file
def test_one_word_one_meaning(path):
    found = [
        f"{n}: {line.strip()}" for n, line in enumerate(path.read_text().splitlines(), 1) if BANNED_WORDS.search(line)
    ]
    assert not found, f"{name(path)} uses a word that this project has another one for: {found}"


def test_only_one_place_holds_generated_code():
    assert {path.parent for path in GENERATED} == {ROOT / "envs" / "proto"}


def test_every_dependency_is_imported():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    imported = set()
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").split(".")[0])
    names = {re.split(r"[<>=\[ ]", dependency)[0] for dependency in declared}
    unused = {
        name
        for name in names
        if {"grpcio": "grpc", "protobuf": "google"}.get(name, name.replace("-", "_")) not in imported
    }
    assert not unused, f"declared, but imported nowhere: {sorted(unused)}"


def test_every_folder_is_linked_into_the_package():
    for layer in LAYERS:
        link = ROOT / "src" / "shoal" / layer
        assert link.is_symlink()
        assert link.resolve() == ROOT / layer
        assert (ROOT / layer / "py.typed").exists()


def test_drivers_import_nothing_heavy_before_they_need_it():
    """One program for all that a driver does without torch: an interpreter that has all of it takes half a second."""
    source = """
import importlib, pathlib, sys, tempfile

def check(after, *heavy):
    loaded = [name for name in ("torch", "tensorflow", *heavy) if name in sys.modules]
    assert not loaded, f"{after}: {loaded}"

drawing = "matplotlib", "tensorboard", "uvicorn"
for module in ("shoal", "shoal.rl", "shoal.algorithms", "shoal.cli.main"):
    importlib.import_module(module)
    check(module, *drawing, "shoal.rl.algorithm", "shoal.algorithms.ppo")
from shoal.cli.main import main
others = "shoal.algorithms.dqn", "shoal.rl.supervised.table"  # each algorithm is loaded where it is used
for arguments in (["--help"], ["train", "--help"], ["train", "ppo", "--help"]):
    main(arguments)
    check(arguments, *drawing, *others)
from shoal.algorithms import PPO
PPO("CartPole-v1", engine="serial")
check("a training", *drawing, *others)
from shoal.rl.callbacks.progress import ProgressDisplay
from shoal.rl.runs.metrics import TensorBoardFile
from shoal.rl.runs.run_folder import RunFolder
check("a run folder", *drawing)
TensorBoardFile(pathlib.Path(tempfile.mkdtemp())).flush()
assert "tensorboard" in sys.modules
check("TensorBoard's file")
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@for_each_file
def test_what_kind_a_space_is_of_is_asked_in_one_place(path):
    """Elsewhere its codec is asked, so that a new kind of space is one class."""
    if path.is_relative_to(ROOT / "envs" / "spaces"):
        return
    kinds = {"Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple", "Text", "Graph", "OneOf"}
    for node in nodes(path):
        if isinstance(node, ast.Call) and called(node) in ("isinstance", "issubclass"):
            named = {
                part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in ast.walk(node)
            }
            assert not named & kinds, f"{name(path)}:{node.lineno} asks for the kind of a space: ask codec(space)"
