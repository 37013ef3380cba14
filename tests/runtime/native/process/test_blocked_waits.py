"""Who makes an object that somebody waits for: the processes at the other end of a chain of calls."""

from types import SimpleNamespace

from shoal.runtime.native.process.blocked_waits import Makers
from shoal.runtime.native.process.calls import PendingCall
from shoal.runtime.native.process.objects import Record
from shoal.runtime.native.protocol import messages as m


def test_the_makers_at_the_other_end_of_a_long_chain_are_found():
    ids = [b"process1" + number.to_bytes(8, "big") for number in range(1, 3001)]
    calls = {}
    for before, task in zip([None, *ids], ids, strict=False):
        slots = [] if before is None else [SimpleNamespace(id=before)]
        calls[task] = PendingCall(task, None, "step", None, [task], m.Value(b""), slots, [], 0, missing=len(slots))
    calls[ids[0]].lease = SimpleNamespace(worker=b"worker-1", inflight={ids[0]: calls[ids[0]]})
    makers = Makers(None, {task: Record() for task in ids}, calls)
    assert makers.of(ids[-1]).makers == [b"worker-1"]
    assert makers.of(ids[-1]).name == "step"
