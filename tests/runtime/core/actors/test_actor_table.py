"""The node's table of actors: every way from pending to dead."""

import pytest

from shoal.runtime.core.actors.table import Actor, ActorTable, AskResources, EndProcess, Tell

OWNER, FIRST, SECOND = b"owner", b"process1", b"process2"
KEY = b"actor"


def new_actor(max_restarts=0):
    return Actor(KEY, OWNER, "Counter", max_restarts, None)


@pytest.fixture
def table():
    return ActorTable()


def start(table, max_restarts=0, state="alive"):
    """Bring an actor to a state; return it."""
    actor = new_actor(max_restarts)
    table.create(actor, ready=state != "declared")
    actor = table.actors[KEY]
    if state in ("starting", "alive"):
        table.granted(KEY, FIRST)
    if state == "alive":
        assert table.constructed(FIRST, None) == [Tell(actor)]
    return actor


def test_an_actor_asks_for_resources_starts_and_lives(table):
    actor = new_actor()
    assert table.create(actor, ready=True) == [AskResources(actor)]
    assert actor.state == "pending"
    table.granted(KEY, FIRST)
    assert actor.state == "starting"
    assert table.constructed(FIRST, None) == [Tell(actor)]
    assert (actor.state, actor.process, actor.watchers) == ("alive", FIRST, {OWNER})


def test_a_declared_actor_can_be_watched_and_asks_for_resources_when_its_arguments_are_there(table):
    actor = new_actor()
    assert table.create(actor, ready=False) == []
    assert table.watch(KEY, b"other") is actor
    assert table.create(new_actor(), ready=True) == [AskResources(actor)]


@pytest.mark.parametrize("state", ["declared", "pending"])
def test_killed_before_it_has_a_process_it_never_starts(table, state):
    actor = start(table, state=state)
    assert table.kill(KEY, no_restart=True) == [Tell(actor)]
    assert (actor.state, actor.reason) == ("dead", "it was killed by kill()")
    assert table.create(new_actor(), ready=True) == []


def test_a_declared_actor_whose_argument_fails_is_dead_with_that_reason(table):
    actor = start(table, state="declared")
    assert table.failed(KEY, OWNER, "an argument failed", b"why") == [Tell(actor)]
    assert (actor.state, actor.reason, actor.failure) == ("dead", "an argument failed", b"why")


def test_only_its_owner_can_say_that_an_actor_failed(table):
    actor = start(table)
    assert table.failed(KEY, b"other", "no", None) == []
    assert actor.state == "alive"


def test_a_failing_constructor_makes_it_dead_and_the_process_may_leave(table):
    actor = start(table, state="starting")
    assert table.constructed(FIRST, b"trouble") == [Tell(actor), EndProcess(FIRST, gracefully=True)]
    assert (actor.state, actor.failure) == ("dead", b"trouble")
    assert table.process_died(FIRST, "exit") == []


def test_a_crash_without_restarts_is_its_death(table):
    actor = start(table)
    assert table.process_died(FIRST, "signal 9") == [Tell(actor)]
    assert (actor.state, actor.reason, actor.process) == ("dead", "signal 9", None)
    assert table.kill(KEY, no_restart=True) == []


def test_restarts_are_counted(table):
    actor = start(table, max_restarts=1)
    assert table.process_died(FIRST, "boom") == [Tell(actor), AskResources(actor)]
    assert (actor.state, actor.reason) == ("restarting", "boom")
    table.granted(KEY, SECOND)
    table.constructed(SECOND, None)
    assert table.process_died(SECOND, "again") == [Tell(actor)]
    assert actor.state == "dead"


def test_without_limit_it_comes_back_each_time(table):
    actor = start(table, max_restarts=-1)
    for number in range(20):
        process = b"p%d" % number if number else FIRST
        assert AskResources(actor) in table.process_died(process, "boom")
        table.granted(KEY, b"p%d" % (number + 1))
        table.constructed(b"p%d" % (number + 1), None)
    assert actor.state == "alive"


def test_a_crash_while_starting_counts_as_a_crash(table):
    actor = start(table, max_restarts=1, state="starting")
    assert AskResources(actor) in table.process_died(FIRST, "boom")
    assert actor.state == "restarting"


def test_kill_ends_the_process_and_the_resources_are_free_only_when_it_is_gone(table):
    actor = start(table, max_restarts=-1)
    assert table.kill(KEY, no_restart=True) == [EndProcess(FIRST, gracefully=False), Tell(actor)]
    assert table.process_died(FIRST, "signal 9") == []
    assert actor.state == "dead"


def test_kill_with_restart_lets_it_come_back(table):
    actor = start(table, max_restarts=1)
    assert table.kill(KEY, no_restart=False) == [EndProcess(FIRST, gracefully=False)]
    assert AskResources(actor) in table.process_died(FIRST, "signal 9")


def test_killed_while_restarting(table):
    actor = start(table, max_restarts=-1)
    table.process_died(FIRST, "boom")
    assert table.kill(KEY, no_restart=True) == [Tell(actor)]
    assert actor.state == "dead"


def test_released_while_alive_it_finishes_what_it_runs(table):
    actor = start(table, max_restarts=-1)
    assert table.released(KEY) == [EndProcess(FIRST, gracefully=True)]
    assert table.process_died(FIRST, "exit 0") == [Tell(actor)]
    assert actor.reason == "its last handle is gone"
    assert not table.actors


@pytest.mark.parametrize("state", ["declared", "pending", "starting"])
def test_released_before_it_lives_it_is_forgotten(table, state):
    actor = start(table, state=state)
    commands = table.released(KEY)
    assert Tell(actor) in commands
    assert (EndProcess(FIRST, gracefully=False) in commands) == (state == "starting")
    assert not table.actors
    if state == "starting":
        assert table.process_died(FIRST, "signal 9") == []


def test_released_after_its_death_it_is_forgotten(table):
    start(table)
    table.process_died(FIRST, "boom")
    assert table.released(KEY) == []
    assert not table.actors
    assert table.watch(KEY, OWNER) is None
    assert table.released(KEY) == []


@pytest.mark.parametrize("state", ["declared", "pending", "starting", "alive"])
def test_it_ends_with_its_owner(table, state):
    actor = start(table, state=state)
    commands = table.process_died(OWNER, "signal 9")
    assert (EndProcess(FIRST, gracefully=False) in commands) == (state in ("starting", "alive"))
    assert "the process that created it is gone: signal 9" in actor.reason
    assert not table.actors


def test_a_dead_watcher_is_forgotten(table):
    actor = start(table)
    table.watch(KEY, b"other")
    table.process_died(b"other", "exit")
    assert actor.watchers == {OWNER}


def test_late_news_of_a_constructor_changes_nothing(table):
    actor = start(table, state="starting")
    table.kill(KEY, no_restart=True)
    assert table.constructed(FIRST, None) == []
    assert table.constructed(b"unknown", None) == []
    assert actor.state == "dead"


# Names ----------------------------------------------------------------------------------------------------------------

SPACE = "space"


def reserve(table, key=KEY, name="the one", namespace=SPACE, identity=b"identity", **options):
    return table.reserve(namespace, name, Actor(key, OWNER, "Counter", 0, None, **options), identity)


def test_a_name_belongs_to_one_living_actor(table):
    assert reserve(table) is None
    assert reserve(table, b"another", identity=b"identity2") == b"identity"
    assert table.find(SPACE, "the one") == b"identity"
    start(table)
    table.process_died(FIRST, "boom")
    assert table.find(SPACE, "the one") is None
    assert reserve(table, b"another", identity=b"identity2") is None


def test_a_name_belongs_to_a_namespace(table):
    assert reserve(table) is None
    assert reserve(table, b"another", namespace="elsewhere", identity=b"identity2") is None
    assert table.find("elsewhere", "the one") == b"identity2"
    assert table.find("nowhere", "the one") is None
    assert table.named() == [("elsewhere", "the one"), (SPACE, "the one")]


def test_whoever_is_told_of_a_reserved_name_can_watch_its_actor_at_once(table):
    reserve(table)
    assert table.watch(KEY, b"other").state == "pending"


def test_a_released_actors_name_is_free_at_once(table):
    reserve(table)
    start(table)
    table.released(KEY)
    assert table.find(SPACE, "the one") is None


def test_a_name_that_was_reserved_for_nothing_goes_with_the_release_or_the_owner(table):
    reserve(table, name="one")
    table.released(KEY)
    assert table.find(SPACE, "one") is None
    reserve(table, name="two")
    table.process_died(OWNER, "exit")
    assert table.find(SPACE, "two") is None


def test_a_restarting_actor_keeps_its_name(table):
    table.reserve(SPACE, "the one", new_actor(max_restarts=1), b"identity")
    start(table, max_restarts=1)
    table.process_died(FIRST, "boom")
    assert table.find(SPACE, "the one") == b"identity"


# Ends on purpose ------------------------------------------------------------------------------------------------------


def test_an_actor_that_ends_itself_is_not_started_again(table):
    actor = start(table, max_restarts=-1)
    table.exiting(FIRST, "exit_actor() was called")
    assert table.process_died(FIRST, "exit 0") == [Tell(actor)]
    assert (actor.state, actor.reason) == ("dead", "exit_actor() was called")
    assert table.watch(KEY, b"other") is actor


def test_an_actor_that_is_ending_itself_has_no_name_and_may_be_released(table):
    reserve(table)
    actor = start(table)
    table.exiting(FIRST, "exit_actor() was called")
    assert table.find(SPACE, "the one") is None
    assert table.released(KEY) == []
    assert table.process_died(FIRST, "exit 0") == [Tell(actor)]
    assert not table.actors


# Detached actors ------------------------------------------------------------------------------------------------------


def detached(table, max_restarts=0, state="alive"):
    actor = Actor(KEY, OWNER, "Counter", max_restarts, None, kept=state != "declared")
    table.create(actor, ready=state != "declared")
    if state == "alive":
        table.granted(KEY, FIRST)
        table.constructed(FIRST, None)
    return actor


@pytest.mark.parametrize("state", ["pending", "alive"])
def test_a_detached_actor_outlives_its_creator(table, state):
    actor = detached(table, state=state)
    assert table.process_died(OWNER, "exit") == []
    assert actor.state == state


def test_a_detached_actor_whose_arguments_are_not_there_ends_with_its_creator(table):
    actor = detached(table, state="declared")
    assert Tell(actor) in table.process_died(OWNER, "exit")
    assert not table.actors


def test_a_detached_actor_is_started_again_without_its_creator(table):
    actor = detached(table, max_restarts=1)
    table.process_died(OWNER, "exit")
    assert AskResources(actor) in table.process_died(FIRST, "boom")
    assert actor.state == "restarting"


def test_a_dead_detached_actor_is_forgotten_but_for_the_reason(table):
    actor = detached(table)
    assert table.process_died(FIRST, "boom") == [Tell(actor)]
    assert table.watch(KEY, b"other") is None
    assert table.reason_of(KEY) == "boom"


def test_a_detached_actor_that_was_killed_while_its_arguments_were_awaited_never_starts(table):
    detached(table, state="declared")
    table.kill(KEY, no_restart=True)
    late = Actor(KEY, OWNER, "Counter", 0, None, kept=True)
    assert table.create(late, ready=True) == []
    table.process_died(OWNER, "exit")
    assert not table.actors


def test_while_an_argument_is_made_again_it_holds_nothing(table):
    actor = start(table, max_restarts=1)
    table.process_died(FIRST, "crashed")
    table.granted(KEY, SECOND)
    assert table.postponed(KEY, b"other", SECOND) == []
    assert table.postponed(KEY, OWNER, FIRST) == []
    assert table.postponed(KEY, OWNER, SECOND) == [EndProcess(SECOND, gracefully=False)]
    assert table.process_died(SECOND, "it was told to") == []
    assert (actor.state, actor.restarts) == ("restarting", 1)  # which counts as no crash
    assert table.resumed(KEY, b"other") == []
    assert table.resumed(KEY, OWNER) == [AskResources(actor)]
    assert table.resumed(KEY, OWNER) == []
    assert table.granted(KEY, FIRST)
    assert table.constructed(FIRST, None) == [Tell(actor)]


def test_killed_while_an_argument_is_made_again_it_is_dead(table):
    actor = start(table, state="starting")
    table.postponed(KEY, OWNER, FIRST)
    assert table.kill(KEY, no_restart=True) == [Tell(actor)]
    assert table.resumed(KEY, OWNER) == []
