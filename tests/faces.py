"""One test for both faces: a sync cache as it is, or an asyncio one driven by an event loop in a thread of its own."""

import asyncio
import inspect
import threading


class LoopThread:
    """An event loop that runs all the time, as a server's does."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def close(self):
        async def end():
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Blocking:
    """Blocking calls of an asynchronous object. Functions given to it may block: each runs in a thread."""

    def __init__(self, runner, inner):
        self._runner, self.inner = runner, inner

    def __getattr__(self, name):
        attribute = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        def call(*args, **kwargs):
            async def main():
                return await attribute(*map(threaded, args), **kwargs)

            return self._runner.run(main())

        return call

    def __getitem__(self, key):
        async def item():
            return await self.inner[key]

        return self._runner.run(item())


def threaded(argument, always=False):
    """An `async def` that runs a blocking function in a thread, in the context of its caller."""
    if not always and not inspect.isfunction(argument) and not hasattr(argument, "blocks"):
        return argument

    async def function(*args):
        return await asyncio.to_thread(argument, *args)

    return function


class Face:
    """Makes objects of one face and closes them."""

    def __init__(self, name):
        self.name = name
        self.runner = LoopThread() if name == "asyncio" else None
        self._made = []

    def wrap(self, made):
        made = made if self.runner is None else Blocking(self.runner, made)
        self._made.append(made)
        return made

    def bare(self, wrapped):
        return wrapped if self.runner is None else wrapped.inner

    def function(self, function):
        return function if self.runner is None else threaded(function)

    def close(self):
        for made in self._made:
            if hasattr(made, "close"):
                made.close()
        if self.runner is not None:
            self.runner.close()
