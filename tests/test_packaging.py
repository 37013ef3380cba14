"""The wheel, installed where there is no checkout: everything is in it and works."""

import os
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("runtime", "envs", "data", "rl", "algorithms", "cli")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*command, **kwargs):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # Only what git would ship: build outputs of an earlier run must not leak into the wheel.
    source.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    [path] = folder.glob("shoal-*.whl")
    return path


def test_the_wheel_holds_every_module_and_data_file(wheel):
    shipped = set(zipfile.ZipFile(wheel).namelist())
    tracked = run("git", "ls-files", *FOLDERS, cwd=ROOT).split()
    wanted = {f"shoal/{name}" for name in tracked if name.endswith((".py", ".pyi", ".toml", ".proto", "py.typed"))}
    assert wanted <= shipped, sorted(wanted - shipped)
    assert {"shoal/__init__.py", "shoal/py.typed"} <= shipped


def test_the_wheel_works_in_an_environment_of_its_own(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            """
            import shoal
            from shoal import PPO

            assert "env/lib" in shoal.runtime.__file__, shoal.runtime.__file__
            assert shoal.__version__[0].isdigit()
            with PPO("CartPole-v1", workers=2) as ppo:
                print(ppo.train(total_timesteps=2048).timesteps)
            """
        )
    )
    # The dependencies come from here, by path; links of editable installs are not followed on such a path.
    environment = os.environ | {"PYTHONPATH": sysconfig.get_paths()["purelib"]}
    assert run(python, "program.py", cwd=tmp_path, env=environment) == "2048\n"
    assert "evaluate" in run(tmp_path / "env" / "bin" / "shoal", "--help", env=environment)
