from collections.abc import Callable, Hashable
from datetime import timedelta
from typing import Any, Literal, TypeVar

from fastcache._lru import LRUCache

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_Cause = Literal["evicted", "expired", "replaced", "deleted", "cleared"]

def check_ttl(ttl: object, name: str = "ttl") -> float: ...

class TTLCache(LRUCache[_K, _V]):
    def __init__(
        self,
        maxsize: float | None,
        ttl: float | timedelta | Any,
        timer: Callable[[], Any] | None = None,
        getsizeof: Callable[[_V], float] | None = None,
        *,
        on_evict: Callable[[_K, _V, _Cause], object] | None = None,
    ) -> None: ...
    @property
    def ttl(self) -> Any: ...
    @property
    def timer(self) -> Callable[[], Any]: ...
    def set(self, key: _K, value: _V, ttl: float | timedelta | Any | None = None) -> None: ...
    def remaining(self, key: _K) -> float | None: ...
    def expire(self, time: Any = None) -> list[tuple[_K, _V]]: ...
    def _sweep(self, most: int) -> int: ...
