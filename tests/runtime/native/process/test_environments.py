"""Surroundings of workers: what is copied for them, whose workers they are, and how it fails."""

import os
import shutil
import stat

import pytest

from shoal import runtime
from shoal.runtime.native.process import packages
from shoal.runtime.native.process.packages import copy_package


@runtime.remote
def pid():
    return os.getpid()


@runtime.remote
def read(path):
    with open(path) as file:
        return file.read()


# Copies ---------------------------------------------------------------------------------------------------------------


def _all_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_copy_leaves_out_what_is_excluded(tmp_path):
    """As git does: rules hold below their folder, the last that says something counts, and then those of `excludes`."""
    source = tmp_path / "source"
    left_out = ("b.log", "sub/d.tmp", "sub/e.bin", "build/x", "__pycache__/a.pyc", ".git/config", "sub/deep/only")
    kept = ("a.py", "d.tmp", "sub/c.py", "sub/keep.log", "sub/build/x", "only", "acpy")
    for name in (*left_out, *kept):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    rules = {".gitignore": "# logs\n*.log\n/build/\n", "sub/.gitignore": "*.tmp\n!keep.log\n/deep/only\n"}
    for name, text in rules.items():
        (source / name).write_text(text)
    copy = copy_package(str(source), str(tmp_path / "copies"), ["*.bin"])
    assert _all_files(tmp_path / "copies" / os.path.basename(copy)) == sorted([*rules, *kept])


def test_a_copy_is_named_by_its_content(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool.sh").write_text("echo")
    (tmp_path / "one" / "tool.sh").chmod(0o755)
    copies = str(tmp_path / "copies")
    first = copy_package(str(tmp_path / "one"), copies)
    assert os.stat(os.path.join(first, "tool.sh")).st_mode & stat.S_IXUSR
    assert copy_package(str(tmp_path / "two"), copies) != first
    (tmp_path / "two" / "tool.sh").chmod(0o755)
    assert copy_package(str(tmp_path / "two"), copies) == first
    assert sorted(os.listdir(copies))[0] != "."
    assert len(os.listdir(copies)) == 2


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_text("text")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    copy = copy_package(str(tmp_path / "a"), str(tmp_path / "copies"))
    assert _all_files(tmp_path / "copies" / os.path.basename(copy)) == ["b/file"]


def test_too_large_a_folder_is_refused_with_its_largest_files(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "MOST_BYTES", 10**6)
    (tmp_path / "data.bin").write_bytes(bytes(2**20))
    (tmp_path / "x.py").write_text("pass")
    with pytest.raises(runtime.RuntimeEnvSetupError, match=r"more than 1.0 MB.*data.bin \(1.0 MB\).*excludes="):
        copy_package(str(tmp_path), str(tmp_path.parent / "copies"))
    assert not os.listdir(tmp_path.parent / "copies")


# Workers --------------------------------------------------------------------------------------------------------------


def test_later_edits_of_the_folder_do_not_matter(shared_native, tmp_path):
    (tmp_path / "data.txt").write_text("old")
    reader = read.options(runtime_env={"working_dir": tmp_path})
    assert runtime.get(reader.remote("data.txt")) == "old"
    (tmp_path / "data.txt").write_text("new")
    assert runtime.get(reader.remote("data.txt")) == "old"
    assert runtime.get(read.options(runtime_env={"working_dir": tmp_path}).remote("data.txt")) == "new"


def test_a_worker_serves_one_environment_only(shared_native):
    ours = {"env_vars": {"SHOAL_TEST": "1"}}
    mine = runtime.get(pid.options(runtime_env=ours).remote())
    plain = runtime.get(pid.remote())
    assert plain != mine
    same = {"env_vars": {"SHOAL_TEST": "1"}}
    seen = {runtime.get(pid.options(runtime_env=same).remote()) for _ in range(3)}
    assert seen == {mine}


def test_variables_are_set_before_the_interpreter_starts(shared_native):
    @runtime.remote(runtime_env={"env_vars": {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "3", "PYTHONPATH": "/nowhere"}})
    def look():
        import sys

        return sys.flags.hash_randomization, hash("shoal"), "/nowhere" in sys.path, "numpy" in sys.modules

    @runtime.remote(runtime_env={"env_vars": {"PYTHONHASHSEED": "8"}})
    def other_hash():
        return hash("shoal")

    randomised, text_hash, on_path, preloaded = runtime.get(look.remote())
    assert (randomised, on_path, preloaded) == (1, True, False)
    assert text_hash != runtime.get(other_hash.remote())


def test_a_process_that_cannot_start_in_its_environment_says_why_and_is_not_tried_for_ever(shared_native):
    broken = {"env_vars": {"PYTHONHOME": "/no/such/place"}}
    with pytest.raises(
        runtime.RuntimeEnvSetupError, match=r"(?s)task pid cannot run in its runtime_env: process \d+.*encodings"
    ):
        runtime.get(pid.options(runtime_env=broken).remote(), timeout=30)
    assert runtime.get(pid.remote(), timeout=30) > 0


def test_an_actor_that_cannot_start_in_its_environment_says_why(shared_native):
    @runtime.remote(max_restarts=-1, runtime_env={"env_vars": {"PYTHONHOME": "/no/such/place"}})
    class Never:
        def f(self):
            pass

    with pytest.raises(
        runtime.RuntimeEnvSetupError, match=r"(?s)actor .*Never cannot start in its runtime_env.*encodings"
    ):
        runtime.get(Never.remote().f.remote(), timeout=30)


def test_a_copy_that_is_gone_is_named(shared_native, tmp_path):
    @runtime.remote(runtime_env={"working_dir": tmp_path})
    class Resident:
        def home(self):
            return os.getcwd()

    home = runtime.get(Resident.remote().home.remote())
    shutil.rmtree(home)
    with pytest.raises(
        runtime.RuntimeEnvSetupError, match=f"the copy {home} of a folder or module of the runtime_env is"
    ):
        runtime.get(Resident.remote().home.remote(), timeout=30)
