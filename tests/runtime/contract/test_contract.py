"""The contract of the runtime: every documented behaviour of its public API, on every engine."""

import copy
import functools
import operator
import re

import numpy as np
import pytest
from conftest import WORKERS_NEED, wait_until
from gates import Gate, pass_gate

from shoal import runtime
from shoal.runtime import util


@runtime.remote
def square(x):
    return x * x


@runtime.remote
def add(a, b=0):
    return a + b


@runtime.remote
def get_all(refs):
    return sum(runtime.get(refs))


@runtime.remote
def fail(message):
    raise KeyError(message)


@runtime.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def increase(self, by=1):
        self.value += by
        return self.value

    def fail(self):
        raise ZeroDivisionError("on purpose")

    @runtime.method(num_returns=2)
    def pair(self):
        return self.value, -self.value


# Tasks ----------------------------------------------------------------------------------------------------------------


def test_task_returns_a_ref_and_get_its_value(engine):
    ref = square.remote(7)
    assert isinstance(ref, runtime.ObjectRef)
    assert runtime.get(ref) == 49


def test_get_takes_a_list_and_keeps_its_order(engine):
    assert runtime.get([square.remote(i) for i in range(20)]) == [i * i for i in range(20)]
    assert runtime.get([]) == []


def test_top_level_refs_are_resolved_before_the_call(engine):
    assert runtime.get(add.remote(square.remote(2), b=square.remote(3))) == 13


def test_nested_refs_arrive_as_refs(engine):
    assert runtime.get(get_all.remote([square.remote(i) for i in range(5)])) == 30


def test_tasks_may_submit_tasks(engine):
    @runtime.remote
    def tree(depth):
        return 1 if depth == 0 else sum(runtime.get([tree.remote(depth - 1), tree.remote(depth - 1)]))

    assert runtime.get(tree.remote(3)) == 8


def test_num_returns(engine):
    @runtime.remote(num_returns=3)
    def three():
        return 1, 2, 3

    assert runtime.get(three.remote()) == [1, 2, 3]
    assert add.options(num_returns=0).remote(1) is None


@pytest.mark.engines("native", "serial", reason="Ray has its own words")
def test_wrong_number_of_returns_is_an_error_that_names_both(engine):
    @runtime.remote(num_returns=2)
    def one():
        return (1,)

    with pytest.raises(ValueError, match=r"num_returns=2, but returned 1 values"):
        runtime.get(one.remote()[0])


@pytest.mark.parametrize("result", [np.arange(2), range(2), {0: "a", 1: "b"}, [0, 1]])
def test_whatever_can_be_iterated_is_taken_apart(engine, result):
    @runtime.remote(num_returns=2)
    def two():
        return result

    assert runtime.get(two.remote()) == [0, 1]


@pytest.mark.engines("native", "serial", reason="Ray has its own words")
def test_what_is_no_iterable_cannot_be_taken_apart(engine):
    with pytest.raises(ValueError, match=r"num_returns=2, but returned a int"):
        runtime.get(square.options(num_returns=2).remote(3)[0])


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"c": 2}), ((1,), {"a": 1})])
def test_wrong_arguments_of_a_task_are_refused_at_once(engine, args, kwargs):
    with pytest.raises(TypeError, match="argument"):
        add.remote(*args, **kwargs)


@pytest.mark.engines("native", "serial", reason="Ray has its own words")
def test_the_error_of_wrong_arguments_says_what_is_taken(engine):
    with pytest.raises(TypeError, match=r"^add\.remote\(…\): missing a required argument: 'a'; it takes \(a, b=0\)$"):
        add.options(num_cpus=0).remote(b=1)


def test_a_decorator_may_take_other_arguments_than_what_it_wraps(engine):
    def with_one(function):
        @functools.wraps(function)
        def call():
            return function(1)

        return call

    @runtime.remote
    @with_one
    def wrapped(x):
        return x

    assert runtime.get(wrapped.remote()) == 1


@pytest.mark.engines("native", "serial", reason="Ray's own methods have parameters of these names")
def test_keyword_arguments_may_have_any_name(engine):
    class Taker:
        def __init__(this, **given):  # so that `self` is free
            this.given = given

        def take(this, **given):  # as above
            return this.given, given

    given = {"self": 1, "task": 2, "name": 3, "function": 4, "args": 5, "engine": 6}
    assert runtime.get(runtime.remote(lambda **given: given).remote(**given)) == given
    assert runtime.get(runtime.remote(Taker).remote(**given).take.remote(**given)) == (given, given)


@pytest.mark.parametrize("target", [functools.partial(int, base=2), operator.itemgetter(0), "101".count, len])
def test_whatever_can_be_called_can_be_a_task(engine, target):
    argument = "101"
    assert runtime.get(runtime.remote(target).remote(argument)) == target(argument)


@pytest.mark.parametrize("name", ["step 1", "step(1)", "a: b"])
def test_a_tasks_name_may_be_any_text(engine, name):
    with pytest.raises(KeyError) as caught:
        runtime.get(fail.options(name=name).remote("x"))
    assert caught.value.__cause__.task == name
    with pytest.raises(KeyError):
        fail.options(name=name).remote("x").future().result(timeout=30)


def test_arguments_are_copies(engine):
    @runtime.remote
    def change(items):
        items.append(1)
        return items

    mine = [0]
    assert runtime.get(change.remote(mine)) == [0, 1]
    assert mine == [0]


def test_closures_and_local_classes_travel(engine):
    class Local:
        def __init__(self, x):
            self.x = x

    factor = 3

    @runtime.remote
    def scale(item):
        return Local(item.x * factor)

    result = runtime.get(scale.remote(Local(5)))
    assert type(result).__name__ == "Local"
    assert result.x == 15


def test_redefined_function_runs_the_new_code(engine):
    def define(value):
        @runtime.remote
        def f():
            return value

        return f

    assert runtime.get(define(1).remote()) == 1
    assert runtime.get(define(2).remote()) == 2


def test_calling_directly_says_how_to_call(engine):
    with pytest.raises(TypeError, match=r"use square\.remote"):
        square(3)
    with pytest.raises(TypeError, match=r"use Counter\.remote"):
        Counter()


# Errors ---------------------------------------------------------------------------------------------------------------


def test_get_raises_the_users_own_exception(engine):
    with pytest.raises(KeyError) as caught:
        runtime.get(fail.remote("the key"))
    assert type(caught.value) is KeyError
    assert caught.value.args == ("the key",)
    cause = caught.value.__cause__
    assert isinstance(cause, runtime.TaskError)
    assert "raise KeyError(message)" in cause.traceback
    assert "shoal/runtime" not in cause.traceback
    assert "fail failed (node" in str(caught.value.__cause__)


class NeedsTwoArguments(Exception):
    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code


@pytest.mark.engines("native", "serial", reason="Ray calls it, and gives a TaskError if it fails")
def test_exception_is_rebuilt_without_its_constructor(engine):
    @runtime.remote
    def f():
        raise NeedsTwoArguments(7, "x")

    with pytest.raises(NeedsTwoArguments, match="7: x") as caught:
        runtime.get(f.remote())
    assert caught.value.code == 7


@pytest.mark.parametrize("error", [OSError(2, "no such file", "name"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")])
def test_builtin_exceptions_keep_their_fields(engine, error):
    @runtime.remote
    def f():
        raise error

    with pytest.raises(type(error)) as caught:
        runtime.get(f.remote())
    assert str(caught.value) == str(error)


def test_unpicklable_exception_becomes_a_task_error_with_its_traceback(engine):
    @runtime.remote
    def f():
        error = RuntimeError("holds a lock")
        error.lock = __import__("threading").Lock()
        raise error

    with pytest.raises(runtime.TaskError, match="holds a lock"):
        runtime.get(f.remote())


def test_failed_argument_fails_the_task_with_the_first_exception(engine):
    with pytest.raises(KeyError, match="first"):
        runtime.get(add.remote(1, fail.remote("first")))


def test_unpicklable_argument_names_the_type(engine):
    with pytest.raises(TypeError, match=r"lock.*cannot be sent to another process|cannot pickle '_thread.lock'"):
        square.remote(__import__("threading").Lock())


@pytest.mark.engines("native", "serial", reason="Ray has its own words")
def test_unpicklable_result_is_the_tasks_error(engine):
    @runtime.remote
    def f():
        return __import__("threading").Lock()

    with pytest.raises(TypeError, match="cannot be sent to another process"):
        runtime.get(f.remote())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cpu": 1}, "unknown option 'num_cpu'. Did you mean 'num_cpus'"),
        ({"num_cpus": -1}, "num_cpus=-1: want a number that is not negative"),
        ({"num_returns": 1.5}, "num_returns=1.5: want an integer"),
        ({"resources": {"CPU": 1}}, "use num_cpus="),
        ({"max_retries": -2}, "-1 means: without limit"),
    ],
)
def test_bad_options_are_refused_at_once(options, message):
    with pytest.raises(runtime.InputError, match=message):
        runtime.remote(**options)(lambda: None)


def test_infeasible_demand_raises_at_submission(engine):
    with pytest.raises(runtime.InfeasibleError, match=r"task .*square can never run: it asks for CPU 64"):
        square.options(num_cpus=64).remote(1)
    with pytest.raises(runtime.InfeasibleError, match=r"rocket 1 \(there are 0\)"):
        Counter.options(resources={"rocket": 1}).remote()


@pytest.mark.parametrize("bad", [3, "ref", [1], None])
def test_get_refuses_what_is_no_ref(engine, bad):
    with pytest.raises(TypeError, match="ObjectRef"):
        runtime.get(bad)


# Objects --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        2.5,
        "text",
        b"bytes",
        (1, [2, {"three": {4}}]),
        {"k": np.arange(3)},
        np.float32(2),
        range(5),
        "x" * 300_000,
    ],
    ids=lambda value: str(value)[:20],
)
def test_values_survive_put_and_get(engine, value):
    result = runtime.get(runtime.put(value))
    if isinstance(value, dict):
        assert np.array_equal(result["k"], value["k"])
    else:
        assert result == value
        assert type(result) is type(value)


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_arrays_come_out_equal_and_read_only(engine, size):
    array = np.arange(size, dtype=np.float32)
    ref = runtime.put(array)
    result = runtime.get(ref)
    assert np.array_equal(result, array)
    assert not result.flags.writeable
    array[0] = -1
    assert runtime.get(ref)[0] == 0


def test_strided_arrays_travel(engine):
    array = np.arange(12).reshape(3, 4)
    result = runtime.get(runtime.put([array[:, ::2], array.T]))
    assert np.array_equal(result[0], array[:, ::2])
    assert np.array_equal(result[1], array.T)


def test_array_outlives_its_ref(engine):
    array = runtime.get(runtime.put(np.full(200_000, 7.0)))
    for i in range(20):
        runtime.get(runtime.put(np.full(200_000, float(i))))
    assert (array == 7).all()


def test_put_refuses_a_ref(engine):
    with pytest.raises(TypeError, match="is a reference already"):
        runtime.put(runtime.put(1))


def test_refs_inside_objects_keep_their_targets_alive(engine):
    outer = runtime.put({"inner": runtime.put(np.arange(50_000))})
    inner = runtime.get(outer)["inner"]
    del outer
    assert runtime.get(inner)[-1] == 49_999


def test_task_may_return_refs_it_made(engine):
    @runtime.remote
    def make():
        return [runtime.put(5), square.remote(6)]

    assert runtime.get(runtime.get(make.remote())) == [5, 36]


def test_refs_compare_and_hash_by_identity_of_the_object(engine):
    ref = runtime.put(1)
    [same] = runtime.get(runtime.put([ref]))
    assert same == ref
    assert len({same, ref}) == 1
    assert ref != runtime.put(1)


def test_a_copy_of_a_ref_is_the_ref(engine):
    ref = runtime.put(1)
    assert copy.copy(ref) is copy.deepcopy(ref) is ref


def test_refs_cannot_be_pickled_by_hand(engine):
    with pytest.raises(TypeError, match="Pass it to a task or an actor"):
        __import__("pickle").dumps(runtime.put(1))


def test_future_and_await(engine):
    import asyncio

    async def both():
        return await square.remote(3), await asyncio.gather(square.remote(4), square.remote(5))

    assert asyncio.run(both()) == (9, [16, 25])
    with pytest.raises(KeyError):
        fail.remote("x").future().result()


# empty ----------------------------------------------------------------------------------------------------------------


@pytest.mark.engines("native", "serial", reason="on Ray it would wait for ever")
@pytest.mark.parametrize("ask", ["result", "exception"])
def test_a_task_that_waits_for_a_future_lends_its_cpu(engine, ask):
    @runtime.remote(num_cpus=2)
    def outer():
        future = square.remote(3).future()
        return getattr(future, ask)(), future.result(20)

    assert runtime.get(outer.remote(), timeout=20) == (9 if ask == "result" else None, 9)


def test_a_future_that_is_late_raises_a_timeout(concurrent):
    gate = Gate.remote()
    future = pass_gate.remote(gate, 1).future()
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            ask(0.001)
    gate.release.remote()
    assert future.result(20) == 1


@pytest.mark.engines("native", "serial", reason="on Ray `empty` is ordinary memory")
def test_empty_put_seals_in_place(engine):
    array = runtime.empty((100, 30), np.float32)
    array[:] = 3
    ref = runtime.put(array)
    assert not array.flags.writeable
    assert (runtime.get(ref) == 3).all()


@pytest.mark.engines("native", "serial", reason="on Ray `empty` is ordinary memory")
def test_empty_returned_inside_a_structure(engine):
    @runtime.remote
    class Maker:
        def make(self):
            self.kept = runtime.empty((50, 40), np.int64)
            self.kept[:] = np.arange(2000).reshape(50, 40)
            return {"array": self.kept, "small": runtime.empty(0), "name": "x"}

        def kept_is_writable(self):
            return bool(self.kept.flags.writeable)

    maker = Maker.remote()
    result = runtime.get(maker.make.remote())
    assert result["array"].sum() == 1999 * 1000
    assert not result["array"].flags.writeable
    assert runtime.get(maker.kept_is_writable.remote()) is False


@pytest.mark.parametrize("shape", [-1, (-1,), (3, -2)])
def test_empty_refuses_shapes_that_no_array_can_have(engine, shape):
    with pytest.raises(runtime.InputError, match=re.escape(f"shape={shape}: want sizes of at least 0")):
        runtime.empty(shape, np.float64)


def test_empty_that_is_passed_as_an_argument_stays_writable(engine):
    @runtime.remote
    def total(array):
        return float(array.sum())

    array = runtime.empty(30_000)
    array[:] = 1
    assert runtime.get(total.remote(array)) == 30_000
    array[0] = 5


# wait -----------------------------------------------------------------------------------------------------------------


def test_wait_splits_in_the_order_given(engine):
    refs = [square.remote(i) for i in range(5)]
    runtime.get(refs)
    ready, pending = runtime.wait(refs, num_returns=2)
    assert ready == refs[:2]
    assert pending == refs[2:]


def test_wait_counts_failures_as_ready(engine):
    ready, pending = runtime.wait([fail.remote("x")], timeout=10)
    assert len(ready) == 1
    assert not pending


def test_wait_refuses_duplicates_and_bad_counts(engine):
    ref = runtime.put(1)
    with pytest.raises(runtime.InputError, match="only 1 different"):
        runtime.wait([ref, ref])
    for count in (0, 2, True):
        with pytest.raises(runtime.InputError, match="want 1 to 1"):
            runtime.wait([ref], num_returns=count)
    assert runtime.wait([]) == ([], [])


def test_numbers_of_numpy_are_numbers(engine):
    one, limit = np.int64(1), np.float32(20)
    options = {
        "num_cpus": np.float32(0.5),
        "max_retries": one,
        "num_returns": np.int32(2),
        "resources": {"memory_of_ours": np.float64(0)},
    }
    refs = add.options(**options).remote([1], [2])
    assert runtime.get(refs, timeout=limit) == [1, 2]
    assert runtime.wait(refs, num_returns=one, timeout=np.int64(20)) == (refs[:1], refs[1:])
    counter = runtime.remote(max_restarts=one, concurrency_groups={"io": one}, num_cpus=one)(Counter._target).remote()
    assert runtime.get(counter.pair.options(num_returns=np.int8(2)).remote()) == [0, 0]
    assert list(util.as_completed(refs, timeout=limit)) == [1, 2]
    assert runtime.empty(np.int64(3)).shape == (3,)
    for bad in (True, np.True_, np.float32(-1), np.array([1.0]), "1"):
        with pytest.raises(runtime.InputError):
            runtime.get(refs, timeout=bad)
        with pytest.raises(runtime.InputError):
            add.options(num_cpus=bad)


def test_a_placement_group_takes_numbers_of_numpy(engine):
    group = util.placement_group([{"CPU": np.float32(1)}, {"CPU": np.int64(1)}])
    assert group.wait(np.int64(20))
    placed = runtime.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=np.int64(1))
    assert runtime.get(add.options(scheduling_strategy=placed).remote(1)) == 1
    util.remove_placement_group(group)


# Actors ---------------------------------------------------------------------------------------------------------------


def test_actor_keeps_state_and_order(engine):
    counter = Counter.remote(10)
    assert runtime.get([counter.increase.remote() for _ in range(10)]) == list(range(11, 21))


def test_actor_method_returning_two_objects(engine):
    first, second = Counter.remote(3).pair.remote()
    assert runtime.get([first, second]) == [3, -3]


def test_actor_exception_leaves_the_actor_alive(engine):
    counter = Counter.remote()
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        runtime.get(counter.fail.remote())
    assert runtime.get(counter.increase.remote()) == 1


def test_actor_arguments_may_be_refs(engine):
    counter = Counter.remote(square.remote(3))
    assert runtime.get(counter.increase.remote(square.remote(2))) == 13


def test_handles_travel(engine):
    @runtime.remote
    def use(counter):
        return runtime.get(counter.increase.remote())

    counter = Counter.remote()
    assert runtime.get(use.remote(counter)) == 1
    assert runtime.get(counter.increase.remote()) == 2


def test_actor_may_be_used_in_one_expression(engine):
    assert runtime.get(Counter.remote(5).increase.remote()) == 6


def test_unknown_method_names_the_nearest(engine):
    counter = Counter.remote()
    with pytest.raises(AttributeError, match=r"no method 'incraese'. Did you mean 'increase'"):
        _ = counter.incraese


def test_wrong_constructor_arguments_are_refused_at_once(engine):
    with pytest.raises(TypeError, match=r"Counter\.remote.*it takes \(start=0\)"):
        Counter.remote(1, 2)


def test_wrong_arguments_of_a_method_are_refused_where_the_actor_was_created(engine):
    counter = Counter.remote()
    for args, kwargs in [((1, 2), {}), ((), {"bye": 1}), ((), {"self": 1})]:
        with pytest.raises(TypeError, match="argument"):
            counter.increase.remote(*args, **kwargs)
    assert runtime.get(counter.increase.remote(by=2)) == 2


def test_wrong_arguments_of_a_method_are_refused_elsewhere(engine):
    @runtime.remote
    def call(counter):
        return runtime.get(counter.increase.remote(1, 2))

    with pytest.raises(TypeError, match="argument"):
        runtime.get(call.remote(Counter.remote()))


@pytest.mark.engines("native", "serial", reason="Ray's decorator is another one")
def test_actor_classes_are_not_inherited_from():
    with pytest.raises(TypeError, match="'Counter' cannot be inherited from: inherit from the plain class"):

        class Derived(Counter):
            pass


def test_special_methods_that_a_class_defines_are_called_like_others(engine):
    @runtime.remote
    class Shelf:
        def __init__(self):
            self.books = {}

        def __setitem__(self, title, book):
            self.books[title] = book

        def __len__(self):
            return len(self.books)

        def __iter__(self):
            return iter(self.books)

        def __call__(self):
            return "called"

    shelf = Shelf.remote()
    runtime.get(shelf.__setitem__.remote("a", 1))
    assert runtime.get([shelf.__len__.remote(), shelf.__call__.remote()]) == [1, "called"]
    for python_calls in (len, iter):
        with pytest.raises(TypeError):
            python_calls(shelf)


@pytest.mark.engines("native", "serial", reason="Ray has its own words")
def test_special_methods_that_concern_the_handle_are_not_the_actors(engine):
    @runtime.remote
    class Copied:
        def __copy__(self):
            raise AssertionError

        def __reduce__(self):
            raise AssertionError

        def __setstate__(self, state):
            raise AssertionError

    actor = Copied.remote()
    assert copy.copy(actor) == copy.deepcopy(actor) == actor
    for missing in ("__len__", "__setstate__", "__getstate__.remote"):
        with pytest.raises(AttributeError):
            operator.attrgetter(missing)(actor)


def test_failing_constructor_makes_a_dead_actor_with_the_exception_as_cause(engine):
    @runtime.remote
    class Broken:
        def __init__(self):
            raise RuntimeError("no way")

        def f(self):
            return 1

    broken = Broken.remote()
    with pytest.raises(runtime.ActorDiedError, match="its constructor failed") as caught:
        runtime.get(broken.f.remote())
    assert isinstance(caught.value.__cause__, RuntimeError) or engine == "ray"  # Ray keeps its text only
    assert "RuntimeError" in str(caught.value)
    assert "no way" in str(caught.value)
    with pytest.raises(runtime.ActorDiedError):
        runtime.get(broken.f.remote())


def test_named_actor(engine):
    counter = Counter.options(name="the counter").remote(1)
    assert runtime.get(runtime.get_actor("the counter").increase.remote()) == 2
    assert runtime.get_actor("the counter") == counter
    with pytest.raises(runtime.InputError, match="an actor named 'the counter' is alive"):
        Counter.options(name="the counter").remote()
    del counter
    if engine == "ray":  # which ends it in its own time
        wait_until(lambda: "the counter" not in runtime.util.list_named_actors())
    with pytest.raises(runtime.InputError, match="no living actor has that name"):
        runtime.get_actor("the counter")
    Counter.options(name="the counter").remote()


def test_named_actor_is_found_from_a_task(engine):
    @runtime.remote
    def increase():
        return runtime.get(runtime.get_actor("shared").increase.remote())

    counter = Counter.options(name="shared").remote()
    assert runtime.get([increase.remote() for _ in range(3)])[-1] >= 1
    assert runtime.get(counter.increase.remote()) == 4


@pytest.mark.engines("native", "serial", reason="Ray's kill returns before the actor has ended")
def test_killed_actor_says_so(engine):
    counter = Counter.remote()
    runtime.get(counter.increase.remote())
    runtime.kill(counter)
    with pytest.raises(runtime.ActorDiedError, match=r"Counter.*is dead: it was killed by kill"):
        runtime.get(counter.increase.remote())


@pytest.mark.engines("native", "serial", reason="Ray's kill returns before the actor has ended")
def test_kill_with_restart_constructs_the_actor_again(engine):
    counter = Counter.options(max_restarts=1, max_task_retries=-1).remote(100)
    assert runtime.get(counter.increase.remote()) == 101
    runtime.kill(counter, no_restart=False)
    assert runtime.get(counter.increase.remote()) == 101


def test_task_retries_without_restarts_are_refused():
    with pytest.raises(runtime.InputError, match="max_task_retries=3 has no effect with max_restarts=0"):
        runtime.remote(max_task_retries=3)(Counter._target)


# The rest -------------------------------------------------------------------------------------------------------------


def test_init_twice_is_refused(engine):
    with pytest.raises(runtime.InputError, match="is running already"):
        runtime.init(engine=engine)
    runtime.init(engine=engine, ignore_reinit_error=True)


def test_unknown_engine_names_the_nearest():
    runtime.shutdown()
    with pytest.raises(runtime.InputError, match="Did you mean 'serial'"):
        runtime.init(engine="serail")


def test_shutdown_and_start_again(engine):
    assert runtime.is_initialized()
    runtime.shutdown()
    runtime.shutdown()
    assert not runtime.is_initialized()
    runtime.init(engine=engine, preload=WORKERS_NEED)
    assert runtime.get(square.remote(4)) == 16
    runtime.shutdown()


@pytest.mark.engines("native", "ray", reason="there is one process")
def test_shutdown_in_a_worker_does_nothing(engine):
    @runtime.remote
    def stop():
        runtime.shutdown()
        return runtime.is_initialized(), runtime.get(square.remote(3))

    assert runtime.get([stop.remote() for _ in range(4)]) == [(True, 9)] * 4


def test_published_values_are_known_everywhere(engine):
    @runtime.remote
    def look(key):
        return runtime.lookup(key)

    runtime.publish("greeting", {"text": "hello"})
    assert runtime.get(look.remote("greeting")) == {"text": "hello"}
    assert runtime.lookup("nothing") is None
    assert runtime.get(look.remote("nothing")) is None


def test_resources(engine):
    assert runtime.cluster_resources()["CPU"] == 2
    wait_until(lambda: runtime.available_resources()["CPU"] == 2)
