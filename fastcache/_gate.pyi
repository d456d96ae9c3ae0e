from collections.abc import Callable, Hashable
from typing import Any, TypeVar, final

from fastcache._ttl import TTLCache

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")
_D = TypeVar("_D")

@final
class Gate:
    until: float
    def __init__(self, until: float = ...) -> None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def is_open(self) -> bool: ...

@final
class GatedLookup:
    def __new__(cls, map: TTLCache[_K, _V], gate: Gate) -> GatedLookup: ...
    @property
    def map(self) -> TTLCache[object, object]: ...
    @property
    def gate(self) -> Gate: ...
    # Any: what the map holds, as `TTLCache.get`
    def __call__(self, key: Hashable, default: object, /) -> object: ...

class HasLookup:
    _gated: GatedLookup | None

@final
class LookupFirst:
    def __new__(
        cls, method: Callable[..., Any], arguments: int, apart: type[Any], ready: Callable[[Any], Any] | None = None
    ) -> LookupFirst: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
