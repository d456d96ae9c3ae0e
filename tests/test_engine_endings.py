"""How shared runs, background work and timed loaders end: with a caller, with an event loop, with a full pool."""

from __future__ import annotations

import asyncio

from fastcache import AsyncMemoryCache


def test_a_batch_outlives_the_cancellation_of_a_caller_whose_load_it_joined() -> None:
    """`get_or_load_many` that hasn't come to wait for another caller's load yet keeps it from being cancelled."""

    async def main() -> None:
        cache = AsyncMemoryCache(ttl=60)
        loading, go_on, batching, batch_on = (asyncio.Event() for _ in range(4))
        calls = []

        async def slow(key: str) -> str:
            calls.append(key)
            loading.set()
            await go_on.wait()
            return key

        async def batch(keys: list[str]) -> dict[str, str]:
            batching.set()
            await batch_on.wait()
            return {key: key for key in keys}

        single = asyncio.create_task(cache.get_or_load("x", slow))
        await loading.wait()
        many = asyncio.create_task(cache.get_or_load_many(["x", "y"], batch))
        await batching.wait()
        single.cancel()
        await asyncio.gather(single, return_exceptions=True)
        batch_on.set()
        go_on.set()
        assert await asyncio.wait_for(many, 5) == {"x": "x", "y": "y"}
        assert calls == ["x"]

    asyncio.run(main())


def test_a_batch_that_waits_for_two_loads_keeps_both() -> None:
    """The second of the loads that a batch joined isn't cancelled while the batch waits for the first."""

    async def main() -> None:
        cache = AsyncMemoryCache(ttl=60)
        go_on = {key: asyncio.Event() for key in "xy"}
        started = {key: asyncio.Event() for key in "xy"}

        async def slow(key: str) -> str:
            started[key].set()
            await go_on[key].wait()
            return key

        singles = {key: asyncio.create_task(cache.get_or_load(key, slow)) for key in "xy"}
        for event in started.values():
            await event.wait()
        many = asyncio.create_task(cache.get_or_load_many(["x", "y"], lambda keys: {}))
        await asyncio.sleep(0)
        singles["y"].cancel()
        await asyncio.gather(singles["y"], return_exceptions=True)
        go_on["x"].set()
        go_on["y"].set()
        assert await asyncio.wait_for(many, 5) == {"x": "x", "y": "y"}

    asyncio.run(main())


def test_the_last_caller_to_leave_still_ends_the_run() -> None:
    """A load that a single caller and a batch shared is cancelled when both have gone."""

    async def main() -> None:
        cache = AsyncMemoryCache(ttl=60)
        loading, ended = asyncio.Event(), asyncio.Event()

        async def slow(key: str) -> str:
            loading.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return key

        single = asyncio.create_task(cache.get_or_load("x", slow))
        await loading.wait()
        many = asyncio.create_task(cache.get_or_load_many(["x"], lambda keys: {}))
        await asyncio.sleep(0)
        for caller in (single, many):
            assert not ended.is_set()
            caller.cancel()
            await asyncio.gather(caller, return_exceptions=True)
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(main())
