"""What libraries do again and again in a test run, done once.

    Triton's interpreter   wraps all functions of its language at every call of a function within a kernel, around the
                           wrapped ones of the calls before; makes type and shape of each value anew
    torch's rendezvous     reads the call stack, with the sources of all modules, for the name of a method in each record
"""
import math
from typing import Any


def install() -> None:
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    dynamic_rendezvous.get_method_name = lambda depth=2: "method"
    try:
        from triton.runtime import interpreter
    except ImportError:
        return
    wrap_once(interpreter)
    keep_types(interpreter)


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


def keep_types(interpreter: Any) -> None:
    """Of a value in a kernel all but the numbers themselves: few types and shapes, made once."""
    core, numpy_type, make_block = interpreter.tl.core, interpreter._get_np_dtype, interpreter.tl.core.block_type.__init__
    numpy_types, blocks, shapes = {}, {}, {}

    def numpy_type_of(given: Any) -> Any:
        name = given.scalar.name
        if name not in numpy_types:
            numpy_types[name] = numpy_type(given)
        return numpy_types[name]

    def init_block(self: Any, element_ty: Any, shape: Any) -> None:
        key = element_ty.name, *shape
        if key not in blocks:
            make_block(self, element_ty, shape)
            blocks[key] = dict(self.__dict__)
        self.__dict__.update(blocks[key])

    def init_tensor(self: Any, handle: Any, type: Any) -> None:
        self.handle, self.type, self.dtype = handle, type, type.scalar
        key = (*type.shape,) if type.is_block() else ()
        if key not in shapes:
            shapes[key] = core.constexpr(math.prod(key)), core.tuple([core.constexpr(size) for size in key])
        self.numel, self.shape = shapes[key]

    interpreter._get_np_dtype, core.block_type.__init__, core.tensor.__init__ = numpy_type_of, init_block, init_tensor
