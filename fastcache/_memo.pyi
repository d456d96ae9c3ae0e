from collections.abc import Callable, Hashable
from typing import Any, Concatenate, Generic, NamedTuple, NotRequired, Self, TypedDict, overload

from typing_extensions import ParamSpec, TypeVar  # for `default`; a stub imports nothing at run time

_P = ParamSpec("_P", default=...)
_Q = ParamSpec("_Q")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True, default=Any)
_S = TypeVar("_S")
_C = TypeVar("_C")

class CacheInfo(NamedTuple):
    hits: int
    misses: int
    maxsize: int | None
    currsize: int

class CacheParameters(TypedDict):
    maxsize: int | None
    typed: bool
    ttl: NotRequired[float]
    per_instance: NotRequired[bool]

class CallKey:
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

class _CacheMethods(Generic[_P, _R_co]):
    """What a cached function and a method bound to an instance both have. `_P`: the parameters, `self` included."""

    __name__: str
    __qualname__: str
    @property
    def __wrapped__(self) -> Callable[_P, _R_co]: ...
    def cache_info(self) -> CacheInfo: ...
    def cache_clear(self) -> None: ...
    def cache_parameters(self) -> CacheParameters: ...
    def cache_contains(self, /, *args: _P.args, **kwargs: _P.kwargs) -> bool: ...
    def cache_invalidate(self, /, *args: _P.args, **kwargs: _P.kwargs) -> bool: ...

class Memo(_CacheMethods[_P, _R_co]):
    def __init__(
        self,
        function: Callable[_P, _R_co],
        *,
        maxsize: int | None,
        typed: bool = False,
        ttl: float | None = None,
        key: Callable[..., Hashable] | None = None,
        runs: Any = None,
        ready: Callable[[Any], Any] | None = None,
    ) -> None: ...
    def __call__(self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...
    # In this order: a class method, reached through the class or an instance; a method through the class; a method
    # through an instance; a static method through an instance, told by a first parameter that isn't the instance.
    # `self` is a Callable because mypy finds the type of a first parameter there, not in Memo[Concatenate[...], _R].
    @overload
    def __get__(
        self: Callable[Concatenate[_C, _Q], _R], instance: object, owner: _C, /
    ) -> BoundMemo[_Q, Concatenate[Any, _Q], _R]: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: Callable[Concatenate[_S, _Q], _R], instance: _S, owner: type | None = None, /
    ) -> BoundMemo[_Q, Concatenate[Any, _Q], _R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: dict[int, Any], /) -> Self: ...
    def __sizeof__(self) -> int: ...
    # For runs.py, which lets calls share a run.
    def add(self, key: CallKey, value: object) -> list[Any]: ...
    def peek(self, key: CallKey, default: object) -> Any: ...
    def joined(self, key: CallKey) -> None: ...
    def _check(self) -> None: ...

# At run time a plain types.MethodType; its other attributes are the function's. `_Q`: the parameters without self.
class BoundMemo(_CacheMethods[_P, _R_co], Generic[_Q, _P, _R_co]):
    __self__: object
    @property
    def __func__(self) -> Memo[_P, _R_co]: ...
    def __call__(self, /, *args: _Q.args, **kwargs: _Q.kwargs) -> _R_co: ...

def share_between_threads(wrapper: object, function: object) -> None: ...
