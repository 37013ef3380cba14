"""Which runtime of which process something is of."""

import os

from shoal import runtime


def whose(ref):
    try:
        return runtime.get(ref)
    except runtime.ObjectLostError as error:
        return str(error).partition(" of ")[2]


def in_child(act):
    """Return the lines that a forked child makes."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, "\n".join([f"{os.getpid()}", *map(str, act())]).encode())
        os._exit(0)
    os.close(write)
    with open(read) as lines:
        told = lines.read().splitlines()
    os.waitpid(pid, 0)
    return told


def test_a_child_of_a_child_is_told_of_each_runtime_whose_it_is():
    """And of one that its parent had shut down, that it has been."""
    with runtime.init("serial"):
        refs = [runtime.put("first")]

    def child():
        with runtime.init("serial"):
            refs.append(runtime.put("third"))
            return [*map(whose, refs), *in_child(lambda: map(whose, refs))]

    with runtime.init("serial"):
        refs.append(runtime.put("second"))
        child_id, *seen, _, over, second, third = in_child(child)
    parents = "the runtime of process {}, from which this process was forked; make it again"
    assert seen == [over, second, "third"]
    assert over == "a runtime that has been shut down; make it again"
    assert second == parents.format(os.getpid())
    assert third == parents.format(child_id)
