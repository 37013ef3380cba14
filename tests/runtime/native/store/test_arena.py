"""The allocator of shared memory: best fit, joining, reuse only when nobody views."""

import gc
import mmap
import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import sealed_blocks

from shoal.runtime.exceptions import InternalError, ObjectStoreFullError
from shoal.runtime.native.store.arena import HEADER, Arena
from shoal.runtime.native.store.board import Board, new_board
from shoal.runtime.native.store.budget import CHUNK
from shoal.runtime.native.store.views import StaleBlockError, Views

ME, OTHER = b"maker-01", b"owner-02"
CAPACITY = 1 << 24
ADDRESSES = 2 * CAPACITY


class Memory:
    """An arena with two processes' lines of a board."""

    def __init__(self):
        self.board_fd, self.fd = new_board(), os.memfd_create("test-arena")
        os.ftruncate(self.fd, ADDRESSES)
        self.board, self.reader_board = Board(self.board_fd, 0), Board(self.board_fd, 1)
        for index in range(2):
            self.board.open_line(index)
        # The node's pid and descriptor number: this process holds the arena, as the node would.
        self.arena = Arena(ME, self.fd, self.fd, self.board, CAPACITY, self.want)
        self.wants = []
        self.budget = CAPACITY
        self.views = Views(os.getpid(), self.reader_board)

    def want(self, request, size):
        self.wants.append(size)
        if size > self.budget:
            raise ObjectStoreFullError("nothing left")
        self.budget -= size
        self.arena.grant(request, size)

    def make(self, size, owner=OTHER, fill=None):
        [span] = self.arena.allocate([size], owner)
        if fill is not None:
            start = span.offset + HEADER
            self.arena.memory[start : start + size] = bytes([fill]) * size
        self.arena.seal(span, owner)
        return span

    def close(self):
        self.views.close()
        self.board.close()
        self.reader_board.close()
        self.arena.memory.close()
        os.close(self.fd)
        os.close(self.board_fd)


@pytest.fixture
def memory():
    memory = Memory()
    yield memory
    gc.collect(1)  # the young ones: what a test has just dropped
    memory.close()


def test_blocks_are_aligned_and_do_not_overlap(memory):
    spans = [memory.make(size) for size in (1, 64, 100, 5000)]
    assert all(span.offset % 64 == 0 for span in spans)
    for before, after in pairwise(spans):
        assert after.offset >= before.offset + HEADER + before.size


def test_a_freed_block_is_used_again_before_fresh_memory(memory):
    first, _ = memory.make(1000), memory.make(1000)
    memory.arena.free([first])
    again = memory.make(1000)
    assert again.offset == first.offset
    assert again.generation > first.generation


def test_best_fit_takes_the_smallest_block_that_is_large_enough(memory):
    spans = [memory.make(size) for size in (5000, 10, 1000, 10, 3000, 10)]
    memory.arena.free([spans[0], spans[2], spans[4]])
    assert memory.make(900).offset == spans[2].offset
    assert memory.make(2000).offset == spans[4].offset
    assert memory.make(4000).offset == spans[0].offset


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)])
def test_neighbours_are_joined_whatever_the_order_of_freeing(memory, order):
    spans = [memory.make(1000) for _ in range(3)]
    memory.make(1000)
    for index in order:
        memory.arena.free([spans[index]])
        memory.arena.usage()  # takes it back now
    assert memory.make(3 * 1000 + 2 * HEADER).offset == spans[0].offset


def test_scattered_blocks_say_what_to_do(memory):
    memory.budget = 1 << 40
    rising = [memory.make(CAPACITY // 8 * size) for size in (1, 1, 2, 1, 3, 1, 4, 1)]
    memory.arena.free([rising[0], *rising[2::2]])
    with pytest.raises(ObjectStoreFullError, match=r"no room for 16,773,120 bytes: .* 4 blocks .*Drop references"):
        memory.make(CAPACITY - 4096 - HEADER)
    memory.arena.free(rising[1::2])
    memory.make(CAPACITY - 4096 - HEADER)


def test_what_is_larger_than_the_store_is_asked_for_at_its_own_size(memory):
    with pytest.raises(ObjectStoreFullError, match="nothing left"):
        memory.make(2 * CAPACITY)
    assert memory.wants == [2 * CAPACITY + CHUNK]


def test_an_object_as_large_as_the_store_fits_once_all_else_is_gone(memory):
    kept = memory.make(5000)
    memory.arena.free([memory.make(CAPACITY // 2)])
    memory.budget += memory.arena.trim()
    with pytest.raises(ObjectStoreFullError, match="nothing left"):
        memory.make(CAPACITY - 2 * HEADER)
    memory.arena.free([kept])
    memory.budget += memory.arena.trim()
    assert memory.budget == CAPACITY
    memory.make(CAPACITY - 2 * HEADER)


def test_the_blocks_of_a_value_are_made_all_or_none(memory):
    memory.budget = 4 * CHUNK
    with pytest.raises(ObjectStoreFullError, match="nothing left"):
        memory.arena.allocate([2 * CHUNK, 2 * CHUNK, 100], OTHER)
    assert memory.arena.usage() == (0, 0)
    first, second, third = memory.arena.allocate([CHUNK, CHUNK, 100], OTHER)
    assert len({first.generation, second.generation, third.generation}) == 3
    for before, after in pairwise((first, second, third)):
        assert after.offset >= before.offset + HEADER + before.size
    for span in (first, second):
        memory.arena.seal(span, OTHER)
    assert sealed_blocks(memory.fd) == {first.offset: OTHER, second.offset: OTHER}
    memory.arena.free([second])
    assert memory.make(CHUNK).offset == second.offset


def test_a_grant_is_kept_for_who_asked_until_it_is_used(memory):
    """However the free memory changes between asking and the grant: it is enough, and trimming leaves it alone."""

    def want(request, size):
        assert memory.arena.trim() > 0  # what the new block would have used again is gone
        memory.arena.grant(request, size)
        memory.returned = memory.arena.trim()

    memory.make(10)
    memory.arena.free([memory.make(8 * CHUNK)])
    memory.arena._want = want
    memory.make(30 * CHUNK)
    assert memory.returned == 0


def test_what_is_granted_after_all_is_spare_and_given_back(memory):
    class Interrupted(Exception):
        pass

    def want(request, size):
        memory.request, memory.size = request, size
        raise Interrupted

    memory.arena._want = want
    with pytest.raises(Interrupted):
        memory.make(CHUNK)
    memory.arena.grant(memory.request, memory.size)
    assert memory.arena.trim() == memory.size == 3 * CHUNK


def test_freeing_twice_is_our_bug(memory):
    span = memory.make(10)
    memory.arena.free([span])
    memory.arena.usage()
    with pytest.raises(InternalError, match="is freed twice"):
        memory.arena.free([span])


def test_freeing_twice_before_it_is_taken_back_is_our_bug_too(memory):
    span = memory.make(10)
    memory.arena.free([span])
    with pytest.raises(InternalError, match="is freed twice"):
        memory.arena.free([span])


def test_a_viewed_block_is_not_used_again_until_the_last_view_is_gone(memory):
    span = memory.make(1000, fill=7)
    array = np.frombuffer(memory.views.view(span), np.uint8)
    part = array[10:20]
    memory.arena.free([span])
    del array
    gc.collect(1)  # the young ones: what a test has just dropped
    memory.views.drain()
    assert memory.make(1000, fill=9).offset != span.offset
    assert (part == 7).all()
    del part
    memory.views.drain()
    assert memory.make(1000).offset == span.offset


def test_views_are_read_only(memory):
    view = memory.views.view(memory.make(10, fill=1))
    assert view.readonly
    assert not np.frombuffer(view, np.uint8).flags.writeable


def test_two_views_of_a_block_need_one_place_on_the_board(memory):
    span = memory.make(10)
    first, second = memory.views.view(span), memory.views.view(span)
    assert memory.board.held() == {(memory.fd, span.offset)}
    del first
    memory.views.drain()
    assert memory.board.held() == {(memory.fd, span.offset)}
    del second
    memory.views.drain()
    assert memory.board.held() == set()


def test_a_full_line_on_the_board_gives_copies(memory, monkeypatch):
    monkeypatch.setattr(memory.reader_board, "_free", [])
    span = memory.make(10, fill=5)
    copy = memory.views.view(span)
    memory.arena.free([span])
    assert memory.make(10, fill=6).offset == span.offset
    assert copy == b"\5" * 10


def test_a_reused_block_is_not_taken_for_the_old_one(memory):
    span = memory.make(100)
    memory.arena.free([span])
    with pytest.raises(StaleBlockError):
        memory.views.view(span)
    memory.make(100)
    with pytest.raises(StaleBlockError):
        memory.views.view(span)
    assert memory.board.held() == set()


def test_another_makers_block_under_the_same_number_is_not_taken_for_the_old_one(memory):
    old = memory.make(8, fill=1)
    memory.arena.memory.close()
    os.ftruncate(memory.fd, 0)  # as if the node had closed it, and held a new one under its number
    os.ftruncate(memory.fd, ADDRESSES)
    memory.arena = Arena(OTHER, memory.fd, memory.fd, memory.board, CAPACITY, memory.want)
    new = memory.make(8, fill=2)
    assert (new.arena, new.offset, new.size) == (old.arena, old.offset, old.size)
    with pytest.raises(StaleBlockError):
        memory.views.view(old)
    assert not memory.views.has(old)
    assert bytes(memory.views.view(new)) == b"\x02" * 8


def test_the_board_forgets_a_dead_process(memory):
    view = memory.views.view(memory.make(10))
    memory.board.clear_line(1)
    assert memory.board.held() == set()
    del view


def test_all_blocks_of_a_dead_owner_are_taken_back(memory):
    memory.make(10, OTHER)
    freed = memory.make(10, OTHER)
    memory.make(10, ME)
    memory.arena.free([freed])
    memory.arena.free_owner(OTHER)
    assert memory.arena.usage()[0] == 1


def test_a_dead_makers_arena_tells_its_living_blocks(memory):
    first, second, third = memory.make(1000, b"owner-01"), memory.make(64, b"owner-02"), memory.make(5, b"owner-03")
    memory.arena.allocate([500], ME)  # never sealed: lost with its maker
    memory.arena.free([second])
    memory.arena.usage()
    assert sealed_blocks(memory.fd) == {first.offset: b"owner-01", third.offset: b"owner-03"}


def test_a_freed_block_that_was_not_taken_back_yet_is_not_living(memory):
    span = memory.make(1000)
    memory.arena.free([span])
    assert sealed_blocks(memory.fd) == {}


def test_an_arena_that_is_filled_to_the_end_is_walked_to_the_end(memory):
    span = memory.make(CAPACITY - 2 * HEADER)
    assert sealed_blocks(memory.fd) == {span.offset: OTHER}


def test_memory_that_is_touched_stays_bounded(memory):
    for _ in range(100):
        memory.arena.free([memory.make(5000)])
    blocks, touched = memory.arena.usage()
    assert blocks == 0
    assert touched <= CHUNK


def test_memory_that_was_used_before_asks_nobody(memory):
    for _ in range(100):
        memory.arena.free([memory.make(5000)])
    assert memory.wants == [2 * CHUNK]
    memory.make(10 * CHUNK)
    assert memory.wants == [2 * CHUNK, 12 * CHUNK]


def test_without_budget_there_is_no_block(memory):
    memory.budget = 4 * CHUNK
    kept = memory.make(CHUNK)
    with pytest.raises(ObjectStoreFullError, match="nothing left"):
        memory.make(2 * CHUNK)
    memory.arena.free([kept])
    memory.make(CHUNK)


def test_trimming_gives_free_memory_back_and_keeps_the_rest(memory):
    kept = memory.make(CHUNK, fill=3)
    freed = memory.make(8 * CHUNK, fill=4)
    viewed = memory.make(3 * CHUNK, fill=5)
    view = memory.views.view(viewed)
    before, spare = os.fstat(memory.fd).st_blocks * 512, memory.arena.budget.spare
    memory.arena.free([freed, viewed])
    assert memory.arena.trim() == 7 * CHUNK + spare
    assert os.fstat(memory.fd).st_blocks * 512 <= before - 7 * CHUNK
    assert view == b"\5" * (3 * CHUNK)
    assert memory.views.view(kept) == b"\3" * CHUNK
    assert memory.arena.trim() == 0
    wants = len(memory.wants)
    again = memory.make(8 * CHUNK, fill=6)
    assert len(memory.wants) == wants + 1
    assert memory.views.view(again) == b"\6" * (8 * CHUNK)
    assert sealed_blocks(memory.fd) == {kept.offset: OTHER, again.offset: OTHER}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.integers(1, 3000)),
        st.tuples(st.just("make"), st.integers(CHUNK // 2, 2 * CHUNK)),
        st.tuples(st.sampled_from(["free", "view", "drop", "walk", "trim"]), st.integers(0, 1000)),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_random_use_never_mixes_blocks_up(steps):
    """Model: each living or viewed block keeps its bytes, living blocks are what a walk finds, memory is given back."""
    memory = Memory()
    living, views = {}, []
    try:
        for number, (what, argument) in enumerate(steps):
            if what == "make":
                fill = number % 251
                living[memory.make(argument, fill=fill)] = fill
            elif what == "free" and living:
                span = list(living)[argument % len(living)]
                del living[span]
                memory.arena.free([span])
            elif what == "view" and living:
                span = list(living)[argument % len(living)]
                views.append((np.frombuffer(memory.views.view(span), np.uint8)[span.size // 2 :], living[span]))
            elif what == "drop" and views:
                views.pop(argument % len(views))
                memory.views.drain()
            elif what == "trim":
                memory.budget += memory.arena.trim()
                assert memory.budget >= 0
                # A walk reads the header behind the last block, and thereby touches that page.
                assert os.fstat(memory.fd).st_blocks * 512 <= memory.arena.budget.used + mmap.PAGESIZE
                assert memory.arena.budget.used == memory.arena.budget.granted
            elif what == "walk":
                assert set(sealed_blocks(memory.fd)) == {span.offset for span in living}
            for array, expected in views:
                assert (array == expected).all()
            for span, expected in living.items():
                assert memory.arena.memory[span.offset + HEADER + span.size - 1] == expected
            array = None
        views.clear()
        memory.arena.free(list(living))
        memory.views.drain()
        assert memory.arena.usage()[0] == 0
        assert memory.arena._sizes == ([(memory.arena._frontier, 0)] if memory.arena._frontier else [])
        memory.budget += memory.arena.trim()
        assert memory.budget == CAPACITY
    finally:
        memory.close()
