"""What the tests of the loading engine share: a clock, a loader that waits when told to, calls in threads."""

import threading

SECONDS = 20  # for things that happen at once unless they never do


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Loader:
    """Counts its runs; waits inside while it is closed; returns or raises what it is told to."""

    blocks = True

    def __init__(self, value="v1"):
        self.value, self.error = value, None
        self.runs, self.keys = 0, []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def __call__(self, key):
        self.runs += 1
        self.keys.append(key)
        self.entered.set()
        assert self.open.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return self.value


def overtake(flights, call, loading, load_on):
    """Two threads call: the late one misses, but joins nobody before the leader, whom `load_on` lets load, is done.

    loading: set while the leader's loader runs. Returns what the two calls returned.
    """
    late, go_on, results = threading.Event(), threading.Event(), []
    share = flights.share_many

    def share_late(*arguments):
        if threading.current_thread().name == "late":
            late.set()
            assert go_on.wait(SECONDS)
        return share(*arguments)

    flights.share_many = share_late
    threads = []
    for name, reached in (("leader", loading), ("late", late)):
        threads.append(threading.Thread(target=lambda: results.append(call()), name=name))
        threads[-1].start()
        assert reached.wait(SECONDS)
    load_on.set()
    threads[0].join()
    go_on.set()
    threads[1].join()
    del flights.share_many
    return results


def start(function, *args, **kwargs):
    """Call in a thread; returns what to call for the outcome."""
    outcome = []

    def work():
        try:
            outcome.append((function(*args, **kwargs), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()

    def finish():
        thread.join(SECONDS)
        assert not thread.is_alive()
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    return finish


def wait_until(condition):
    pause = threading.Event()
    for _ in range(SECONDS * 1000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it didn't come to that")


def waiting(cache):
    """How many callers wait for loads that others lead."""
    flights = {flight for table in cache._loading.flights._all() for flight in table.values()}
    return sum(flight.followers if hasattr(flight, "followers") else flight.claims - 1 for flight in flights)


def quiet(cache):
    """No record stays behind."""
    assert cache.drain(SECONDS)
    assert len(cache._loading.flights) == 0
