"""The same for methods, which lose a parameter when bound. Checked, and run but for the lines that are wrong."""

from typing import Self, assert_type

from fastcache import CacheInfo, cache, lru_cache


class Shop:
    @lru_cache(maxsize=64)
    def price(self, item: int, currency: str = "EUR") -> float:
        return float(item)

    @cache
    def itself(self) -> Self:
        return self

    @staticmethod
    @lru_cache
    def tax(rate: int) -> float:
        return rate / 100

    @classmethod
    @lru_cache(8)
    def named(cls, name: str) -> "Shop":
        return cls()

    @lru_cache
    def untyped(self, item):  # type: ignore[no-untyped-def]
        return item

    @property
    @cache
    def total(self) -> int:
        return 1


class CornerShop(Shop):
    # pyright finds that the two `self` differ.
    @lru_cache(maxsize=8)
    def price(self, item: int, currency: str = "EUR") -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0.0

    @classmethod
    @lru_cache
    def named(cls, name: str) -> Shop:  # pyright: ignore[reportIncompatibleVariableOverride]
        return cls()


shop = Shop()

# Bound: without self

assert_type(shop.price(1), float)
assert_type(shop.price(1, currency="USD"), float)
assert_type(shop.total, int)
shop.price("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
shop.price(shop, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Through the class: with self

assert_type(Shop.price(shop, 1), float)
Shop.price(1)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]

# The cache belongs to the class, so its methods name the instance, from wherever they are reached.

assert_type(Shop.price.cache_info(), CacheInfo)
assert_type(shop.price.cache_info(), CacheInfo)
assert_type(Shop.price.cache_invalidate(shop, 1), bool)
assert_type(shop.price.cache_invalidate(shop, 1, currency="USD"), bool)
assert_type(shop.price.cache_contains(shop, 1), bool)
assert_type(shop.price.__wrapped__(shop, 1), float)
shop.price.cache_invalidate(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# Static and class methods

assert_type(Shop.tax(19), float)
assert_type(shop.tax(19), float)
Shop.tax("19")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(Shop.named("corner"), Shop)
assert_type(shop.named("corner"), Shop)
Shop.named(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(Shop.named.cache_info(), CacheInfo)
assert_type(Shop.tax.cache_info(), CacheInfo)
assert_type(Shop.tax.cache_invalidate(19), bool)
assert_type(Shop.named.cache_invalidate(Shop, "corner"), bool)

# Inherited, and without annotations

assert_type(CornerShop().price(1), float)
assert_type(CornerShop.named("corner"), Shop)
shop.untyped(1)
Shop.untyped(shop, 1)
