"""What the pages under docs/ show, executed in their order: a block is the file that its first line names."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(page):
    return re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        "from_other_libraries.md",
        "offline.md",
        "your_own_environment.md",
        "your_own_network.md",
        "data.md",
        "many_agents.md",
    ],
)
def test_the_files_of_a_page_do_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    found = blocks(page)
    checked = 0
    for (kind, text), (following, told) in zip(found, [*found[1:], ("", "")], strict=True):
        if kind != "python":
            continue
        name = re.match(r"# (\w+\.py)\n", text)
        assert name, f"this block does not say which file it is:\n{text}"
        (tmp_path / name[1]).write_text(text)
        if following == "text":
            command = [sys.executable, name[1]]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert told.strip() in done.stdout + done.stderr, done.stdout + done.stderr
            checked += 1
    assert checked


@pytest.mark.slow
def test_the_programs_of_the_page_on_language_models_run(tmp_path):
    programs = [text for kind, text in blocks("language.md") if kind == "python"]
    assert len(programs) >= 3
    for index, text in enumerate(programs):
        (tmp_path / f"program{index}.py").write_text(text)
        command = [sys.executable, f"program{index}.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


RUN_CELLS = """
import ast, asyncio, sys
cells, names = sys.argv[1:], {"__name__": "__main__"}
async def run():
    for cell in cells:
        made = eval(compile(cell, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if made is not None:
            await made
asyncio.run(run())
"""


@pytest.mark.slow
def test_the_cells_of_the_page_on_notebooks_run_one_after_the_other_in_a_loop_that_runs(tmp_path):
    cells = [text for kind, text in blocks("notebooks.md") if kind == "python"]
    command = [sys.executable, "-c", RUN_CELLS, *cells]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "20480 10\n9 [0, 1, 4, 9]\n", done.stderr
    assert (tmp_path / "runs" / "walk" / "learning_curve.png").exists()


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_the_programs_of_a_page_can_be_read_and_find_what_they_import(page):
    for kind, text in blocks(page):
        if kind != "python":
            continue
        for node in ast.walk(compile(text, page, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "shoal":
                module = import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
