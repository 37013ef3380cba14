"""The shape of the code, as a test: layers, cycles, sizes, documentation and names."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["runtime", "envs", "rl", "algorithms", "cli"]
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
# Loading in one place what a driver must not import: torch and what needs it.
LATE_IMPORTS_ALLOWED = {"rl/lazy.py", "rl/__init__.py"}
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


def is_type_only(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return True
    return False


def parents_of(module: ast.Module) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(module) for child in ast.iter_child_nodes(node)}


@cache
def own_imports(path: Path) -> list[tuple[ast.ImportFrom, str, bool, bool]]:
    """Return (node, module, only for types, inside a function) of the imports of our own modules."""
    module = tree(path)
    parents = parents_of(module)
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.level:
            inside = parents[node]
            while inside in parents and not isinstance(inside, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = parents[inside]
            late = isinstance(inside, ast.FunctionDef | ast.AsyncFunctionDef)
            target = target_of(node, path)
            # `from .. import envs` names a folder itself.
            for where in [target] if target else [alias.name for alias in node.names]:
                found.append((node, where, is_type_only(node, parents), late))
    return found


def modules_imported(path: Path) -> set[str]:
    """Return our modules that importing this one imports at once."""
    modules = {module_of(other) for other in FILES}
    result = set()
    for node, target, type_only, late in own_imports(path):
        if type_only or late:
            continue
        for alias in node.names:
            full = f"{target}.{alias.name}"
            result.add(full if full in modules else target)
    return result


@for_each_file
def test_imports_follow_the_layers(path):
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    for node, target, _, _ in own_imports(path):
        other = target.split(".")[0]
        assert LAYERS.index(other) <= layer, f"{name(path)}:{node.lineno} imports {target}, which is a higher layer"
        if other != path.relative_to(ROOT).parts[0]:
            assert "." not in target, f"{name(path)}:{node.lineno} imports from inside another folder: {target}"
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            assert not private, f"{name(path)}:{node.lineno} imports private names {private}"


@for_each_file
def test_no_import_by_another_name(path):
    for node in ast.walk(tree(path)):
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
    assert not late or name(path) in LATE_IMPORTS_ALLOWED, f"{name(path)}:{late} imports our own modules in a function"


def test_no_import_cycles():
    graph = {module_of(path): modules_imported(path) for path in FILES}
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        assert module not in trail, f"import cycle: {' → '.join([*trail[trail.index(module) :], module])}"
        if module not in done:
            for other in sorted(graph.get(module, ())):
                if other != module:
                    visit(other, [*trail, module])
            done.add(module)

    for module in graph:
        visit(module, [])


@for_each_file
def test_files_and_functions_are_short(path):
    limit = 200 if path.parent == ROOT / "algorithms" else 400
    lines = len(path.read_text().splitlines())
    assert lines <= limit, f"{name(path)} has {lines} lines, more than {limit}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{name(path)}:{node.lineno} {node.name} has {length} lines"


@for_each_file
def test_public_names_are_documented(path):
    module = tree(path)
    assert ast.get_docstring(module), f"{name(path)} has no docstring"

    def check(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if child.name.startswith("_"):
                continue
            decorators = {ast.unparse(decorator).split(".")[-1] for decorator in child.decorator_list}
            if not decorators & {"setter", "overload"}:
                assert ast.get_docstring(child), f"{name(path)}:{child.lineno} {prefix}{child.name} has no docstring"
            # What `Engine` says of its methods need not be said again.
            if isinstance(child, ast.ClassDef) and "Engine" not in map(ast.unparse, child.bases):
                check(child, f"{child.name}.")

    check(module, "")


@for_each_file
def test_one_word_one_meaning(path):
    found = [
        f"{n}: {line.strip()}" for n, line in enumerate(path.read_text().splitlines(), 1) if BANNED_WORDS.search(line)
    ]
    assert not found, f"{name(path)} uses a word that this project has another one for: {found}"


def test_every_folder_is_linked_into_the_package():
    for layer in LAYERS:
        link = ROOT / "src" / "shoal" / layer
        assert link.is_symlink()
        assert link.resolve() == ROOT / layer
        assert (ROOT / layer / "py.typed").exists()


@pytest.mark.parametrize("module", ["shoal.rl", "shoal.algorithms", "shoal.cli.main"])
def test_drivers_do_not_import_torch(module):
    import subprocess
    import sys

    source = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
