"""What libraries do again and again in a test run, done once.

    Triton's interpreter   wraps all functions of its language at every call of a function within a kernel, around the
                           wrapped ones of the calls before
    torch's rendezvous     reads the call stack, with the sources of all modules, for the name of a method in each record
"""
from typing import Any


def install() -> None:
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    dynamic_rendezvous.get_method_name = lambda depth=2: "method"
    try:
        from triton.runtime import interpreter
    except ImportError:
        return
    wrap_once(interpreter)


def wrap_once(interpreter: Any) -> None:
    """A module of the language stays wrapped until the kernel that had it wrapped ends; one that a function within a kernel
    had wrapped is never restored."""
    wrap, wrapped = interpreter._patch_lang, []

    def once(function: Any) -> Any:
        language = interpreter.tl, interpreter.tl.core
        new = [module for module in language if module not in wrapped and module in function.__globals__.values()]
        if not new:
            return interpreter._LangPatchScope()
        scope = wrap(function)
        restore = scope.restore
        wrapped.extend(new)
        scope.restore = lambda: ([wrapped.remove(module) for module in new], restore())
        return scope

    interpreter._patch_lang = once
