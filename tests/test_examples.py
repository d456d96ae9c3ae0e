"""The examples run as they stand."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="there is no checkout")


def run(name):
    environment = {key: value for key, value in os.environ.items() if key != "REDIS_URL"}
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_user_service():
    """A thousand reads, a query."""
    assert "5 queries for 1,002 reads and 2 writes" in run("users.py")


def test_user_service_for_asyncio():
    """The same in an event loop."""
    assert "3 queries for 1,001 reads and a write" in run("users_asyncio.py")


def test_user_service_over_http(tmp_path, monkeypatch):
    """Through FastAPI: read, write, read again, and a user that isn't there."""
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("httpx") is None:
        pytest.skip("fastapi and httpx are not installed (extra `dev`)")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delenv("REDIS_URL", raising=False)
    import asyncio

    import httpx
    import users_asyncio

    async def main():
        app = users_asyncio.make_app(str(tmp_path / "users.db"))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            assert (await client.get("/users/1")).status_code == 404
            assert (await client.put("/users/1", params={"name": "Ada"})).json() == {"id": 1, "name": "Ada"}
            for _ in range(10):
                assert (await client.get("/users/1")).json() == {"id": 1, "name": "Ada"}
            assert app.state.service.table.queries == 3

    asyncio.run(main())
