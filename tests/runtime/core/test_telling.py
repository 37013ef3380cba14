"""Words for the person, whatever standard output and error are."""

import io
import sys

import pytest

from shoal.runtime.core.telling import tell


class WithoutFlush:
    def __init__(self):
        self.told = []

    def write(self, text):
        self.told.append(text)


class Broken:
    def write(self, text):
        raise RuntimeError("the widget has been deleted")

    flush = write


@pytest.mark.parametrize("error", [True, False])
def test_whatever_it_is_replaced_by_ends_nobody(monkeypatch, error):
    name = "stderr" if error else "stdout"
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, Broken()):
        monkeypatch.setattr(sys, name, stream)
        assert not tell("lost\n", error=error)
    kept = WithoutFlush()
    monkeypatch.setattr(sys, name, kept)
    assert tell("kept\n", error=error)
    assert kept.told == ["kept\n"]


@pytest.mark.parametrize(("encoding", "told"), [("ascii", b"K\\xe4fig \\u2713\n"), ("latin-1", b"K\xe4fig \\u2713\n")])
def test_what_its_encoding_does_not_have_is_escaped(monkeypatch, encoding, told):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding=encoding))
    assert tell("Käfig ✓\n")
    assert raw.getvalue() == told
