"""Every relative link, anchor and section that the pages and the sources name is there."""

import functools
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\n")
PAGES = [ROOT / name for name in FILES if name.endswith(".md")]
SOURCES = [ROOT / name for name in FILES if name.endswith((".py", ".md", ".toml", ".js", ".proto", "Makefile"))]
if not PAGES:
    pytest.skip("what belongs to the repository is asked of git", allow_module_level=True)


def prose(page):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@functools.cache
def anchors(page):
    """The anchors that GitHub gives a page's headings."""
    found = []
    for title in re.findall(r"^#+ (.*)", prose(page), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        same = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in found)
        found.append(f"{anchor}-{same}" if same else anchor)
    return found


def sections():
    return re.findall(r"^##+ (\d+(?:\.\d+)?)", prose(ROOT / "DESIGN.md"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "`code`", prose(page))
    links = re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)
    wrong = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


def test_sections_of_the_design_that_are_named_exist():
    known = sections()
    wrong = {
        f"{path.relative_to(ROOT)}: {number}"
        for path in SOURCES
        for number in re.findall(r"DESIGN(?:\.md)?,? (?:section )?(\d+\.\d+)", path.read_text())
        if number not in known
    }
    assert not wrong


def test_the_design_names_its_sections_by_links_and_lists_them_at_its_top():
    text = prose(ROOT / "DESIGN.md")
    defined = dict(re.findall(r"^\[(\d+\.\d+)\]: #(\S+)", text, re.MULTILINE))
    named = set(re.findall(r"\[(\d+\.\d+)\](?!:)", text))
    assert named == set(defined)
    for number, anchor in defined.items():
        assert anchor.startswith(number.replace(".", "") + "-")
    listed = re.findall(r"^ *\* \[(.*)\]\(#.*\)$", text[: text.index("\n## ")], re.MULTILINE)
    assert listed == re.findall(r"^###? (.*)", text, re.MULTILINE)
