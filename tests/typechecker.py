"""The type checker of the package's annotations during the tests; an int is accepted for a float (PEP 484).

jaxtyping wraps every function, to find out which sizes its arrays share: 40% of the time of a small training. A function
without arrays in its annotations is checked here without that, and compiled when it is first called.
"""
import contextlib
import functools
import inspect
import types
import typing

import jaxtyping
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))  # a TypeError
of_arrays = jaxtyping.jaxtyped


@contextlib.contextmanager
def unchecked():
    """For what is long, where other tests have the shapes and types of all that it calls checked."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def jaxtyped(*, typechecker):
    """In place of jaxtyping's, which its import hook calls for each function and class."""

    def decorate(what):
        if not inspect.isfunction(what) or inspect.isgeneratorfunction(what) or inspect.iscoroutinefunction(what):
            return of_arrays(what, typechecker=typechecker)
        hints = resolved(what)
        if has_arrays(hints.values()):
            return of_arrays(what, typechecker=typechecker)
        return when_called(what, hints) if hints else what

    return decorate


def resolved(function):
    """The annotations by name; Any for what is not defined yet, as in jaxtyping."""
    hints = {}
    for name, hint in function.__annotations__.items():
        try:
            hints |= typing.get_type_hints(types.SimpleNamespace(__annotations__={name: hint}), function.__globals__,
                                           include_extras=True)
        except Exception:
            hints[name] = typing.Any
    return hints


def has_arrays(hints):
    """Whether one of the types is an array's, or has one inside."""
    return any((inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray))
               or has_arrays(hint if isinstance(hint, list) else typing.get_args(hint)) for hint in hints)


def when_called(function, hints):
    same = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__,
                              function.__closure__)
    same.__kwdefaults__, same.__annotations__ = function.__kwdefaults__, hints
    same.__module__, same.__qualname__ = function.__module__, function.__qualname__
    compiled = functools.cache(lambda: checked(same))

    @functools.wraps(function)
    def wrapped(*args, **more):
        return function(*args, **more) if jaxtyping.config.jaxtyping_disable else compiled()(*args, **more)

    return wrapped


jaxtyping.jaxtyped = jaxtyped
