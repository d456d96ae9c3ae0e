"""What type checkers are to make of `cached`. Checked by mypy and pyright, never run."""

from typing import assert_type

from fastcache import AsyncMemoryCache, MemoryCache, cached


@cached
def bare(x: int, y: str = "") -> float:
    return float(x)


@cached(MemoryCache[str, str](ttl=60), key="n:{x}", ttl=300, condition=lambda result: result is not None)
def with_options(x: int) -> str:
    return str(x)


@cached(AsyncMemoryCache[str, str]())
async def coroutine(x: int) -> str:
    return str(x)


assert_type(bare(1, y="a"), float)
assert_type(with_options(x=1), str)
assert_type(bare.cache_key(1, "a"), str)
assert_type(bare.invalidate(1), None)
assert_type(bare.refresh(1), float)


async def awaiting() -> None:
    assert_type(await coroutine(1), str)
    assert_type(await coroutine.refresh(1), str)
    await coroutine.invalidate(1)
    assert_type(await shop.stock.invalidate(1), None)
    assert_type(await shop.stock(1), int)
    assert_type(await Shop.later.invalidate(Shop, 1), None)


bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
with_options()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bare.invalidate("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cached(ttl="60")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


class Shop:
    @cached(key="price:{item}")
    def price(self, item: int) -> float:
        return float(item)

    @cached(AsyncMemoryCache[str, int](), key="stock:{item}")
    async def stock(self, item: int) -> int:
        return item

    @classmethod
    @cached
    async def later(cls, item: int) -> int:
        return item


class CornerShop(Shop):
    # pyright finds that the two `self` differ.
    @cached(key="corner:{item}")
    def price(self, item: int) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0.0

    @classmethod
    @cached
    async def later(cls, item: int) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return item


shop = Shop()
assert_type(shop.price.invalidate(1), None)
assert_type(shop.price(1), float)
assert_type(shop.price.cache_key(1), str)
assert_type(Shop.price(shop, 1), float)
