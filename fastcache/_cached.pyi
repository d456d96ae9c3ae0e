from collections.abc import Callable
from typing import Any, Concatenate, Generic, Self, final, overload

from typing_extensions import ParamSpec, TypeVar  # for `default`; a stub imports nothing at run time

from fastcache._gate import GatedLookup
from fastcache._memo import Memo

_P = ParamSpec("_P", default=...)
_Q = ParamSpec("_Q")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True, default=Any)
_I_co = TypeVar("_I_co", covariant=True, default=Any)  # what `invalidate` returns: None, or an awaitable of that
_S = TypeVar("_S")
_C = TypeVar("_C")

def is_plain(value: object) -> bool: ...

class _Methods(Generic[_P, _R_co, _I_co]):
    """What a cached function and one bound to an instance or class have in common."""

    __name__: str
    __qualname__: str
    @property
    def __wrapped__(self) -> Callable[..., _R_co]: ...
    @property
    def cache(self) -> Any: ...
    def cache_key(self, /, *args: _P.args, **kwargs: _P.kwargs) -> str: ...
    def invalidate(self, /, *args: _P.args, **kwargs: _P.kwargs) -> _I_co: ...
    def refresh(self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...

@final
class Cached(_Methods[_P, _R_co, _I_co]):
    def __new__(
        cls, calls: Any, keys: Memo | None, lookup: GatedLookup | None, apart: Any, ready: Any, unused: int = 0
    ) -> Self: ...
    def __call__(self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...
    # As `Memo.__get__`, which says why in this order and on a Callable.
    @overload
    def __get__(
        self: Callable[Concatenate[_C, _Q], _R], instance: object, owner: _C, /
    ) -> CachedOfClass[_Q, Concatenate[Any, _Q], _R, _I_co]: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: Callable[Concatenate[_S, _Q], _R], instance: _S, owner: type | None = None, /
    ) -> BoundCached[_Q, _R, _I_co]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: dict[int, Any], /) -> Self: ...

@final
class BoundCached(_Methods[_P, _R_co, _I_co]):
    @property
    def __self__(self) -> Any: ...
    @property
    def __func__(self) -> Cached[..., _R_co, _I_co]: ...
    def __call__(self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...

# At run time a plain types.MethodType; its other attributes are the function's. `_Q`: the parameters without the class.
class CachedOfClass(_Methods[_P, _R_co, _I_co], Generic[_Q, _P, _R_co, _I_co]):
    __self__: Any
    def __call__(self, /, *args: _Q.args, **kwargs: _Q.kwargs) -> _R_co: ...
