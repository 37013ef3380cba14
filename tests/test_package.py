"""`import shoal`: the version and the public names, each loaded when it is used."""

import ast
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import shoal

SOURCE = Path(__file__).parent.parent / "src" / "shoal" / "__init__.py"


def test_version():
    assert shoal.__version__ == metadata.version("shoal")


@pytest.mark.parametrize("name", sorted(set(shoal.__all__) - {"Policy"}))  # which imports torch
def test_every_public_name_is_there(name):
    assert getattr(shoal, name) is not None
    assert name in dir(shoal)


def test_a_shell_completes_to_nothing_else():
    assert dir(shoal) == sorted(shoal.__all__)


def test_names_are_those_of_their_folders():
    for name, folder in shoal._HOME.items():
        assert name in import_module(f"shoal.{folder}").__all__
        assert name in shoal.__all__


def test_all_algorithms_are_public():
    assert set(import_module("shoal.algorithms").__all__) <= set(shoal.__all__)


@pytest.mark.parametrize("folder", ["rl", "algorithms", "data"])
def test_every_name_that_is_loaded_later_can_be(folder):
    package = import_module(f"shoal.{folder}")
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module 'shoal.{folder}' has no attribute 'Nothing'"):
        _ = package.Nothing


def test_algorithms_have_the_names_of_their_classes():
    for known in (shoal.ALGORITHMS, shoal.FITS):
        assert list(known) == [algorithm.name for algorithm in known.values()]


def test_type_checkers_see_the_same_names():
    [block] = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert seen == shoal._HOME


def test_importing_it_loads_nothing():
    code = "import shoal, sys; dir(shoal); sys.exit(any(name.startswith('shoal.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'shoal' has no attribute 'PP0'") as caught:
        _ = shoal.PP0
    assert caught.value.obj is shoal
