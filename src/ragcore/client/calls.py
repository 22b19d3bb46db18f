"""Operations as methods: each is written once as steps, and is a plain method of one client and a
coroutine, or an asynchronous iterator, of the other."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ragcore.client.exchange import Steps, Stream

P = ParamSpec("P")
T = TypeVar("T")


class Driver(ABC):
    """Runs steps, one way or the other."""

    @abstractmethod
    def _run(self, steps: Steps[Any]) -> Any: ...

    @abstractmethod
    def _iterate(self, stream: Stream[Any]) -> Any: ...


class Blocking(Driver):
    """Does what steps ask for while its caller waits."""

    @abstractmethod
    def _run(self, steps: Steps[T]) -> T: ...

    @abstractmethod
    def _iterate(self, stream: Stream[T]) -> Generator[T, None, None]: ...


class Awaiting(Driver):
    """Does what steps ask for on the event loop."""

    @abstractmethod
    def _run(self, steps: Steps[T]) -> Coroutine[Any, Any, T]: ...

    @abstractmethod
    def _iterate(self, stream: Stream[T]) -> AsyncGenerator[T, None]: ...


class call(Generic[P, T]):  # noqa: N801  # a decorator
    """Makes a method of steps that end with a value."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, P], Steps[T]]: ...

    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, client: Awaiting, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, client: Driver | None, owner: type) -> Callable[..., Any]:
        if client is None:
            return self._steps
        steps = self._steps.__get__(client, owner)

        @wraps(steps)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._run(steps(*args, **kwargs))

        return method


class stream(Generic[P, T]):  # noqa: N801  # a decorator
    """Makes a method of steps that yield values on their way: an iterator."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        self._steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, P], Stream[T]]: ...

    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, Generator[T, None, None]]: ...

    @overload
    def __get__(self, client: Awaiting, owner: type) -> Callable[P, AsyncGenerator[T, None]]: ...

    def __get__(self, client: Driver | None, owner: type) -> Callable[..., Any]:
        if client is None:
            return self._steps
        steps = self._steps.__get__(client, owner)

        @wraps(steps)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._iterate(steps(*args, **kwargs))

        return method
