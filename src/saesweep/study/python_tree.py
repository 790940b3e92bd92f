"""What `ast` says about Python source: the role of each name, and the place of each token."""
from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Iterator

from saesweep.study.python_tokens import line_starts
from saesweep.study.spans import Span

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BUILTINS = frozenset(dir(builtins))
EXCEPTIONS = frozenset(
    name for name in BUILTINS if isinstance(kind := getattr(builtins, name), type) and issubclass(kind, BaseException))


def tree_spans(source: str) -> Iterator[Span]:
    """Raises SyntaxError, ValueError or RecursionError where the source does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the source's own mistakes
        tree = ast.parse(source)
    at = _Characters(source)
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield from _of_node(node, at)
        if not isinstance(node, ast.JoinedStr):  # before Python 3.12 the positions inside an f-string are not reliable
            waiting.extend(ast.iter_child_nodes(node))


class _Characters:
    """From the lines and UTF-8 bytes of a tree to characters."""

    def __init__(self, source: str):
        self.starts, self.lines, self.ascii = line_starts(source), source.split("\n"), source.isascii()

    def number(self, line: int, column: int) -> int:
        before = column if self.ascii else len(self.lines[line - 1].encode("utf-8", "surrogatepass")[:column].decode(
            "utf-8", "surrogatepass"))
        return self.starts[line - 1] + before

    def span(self, label: str, node: ast.AST, name: str | None = None, last: bool = False) -> Span:
        """Of the whole node, or of the name with which it begins or (last) ends."""
        where: dict[str, int] = vars(node)
        start = self.number(where["lineno"], where["col_offset"])
        end = self.number(where["end_lineno"], where["end_col_offset"])
        if name is None:
            return Span(label, start, end)
        return Span(label, end - len(name), end) if last else Span(label, start, start + len(name))


def _of_node(node: ast.AST, at: _Characters) -> Iterator[Span]:
    if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)):
        yield from _of_definition(node, at)
    elif isinstance(node, ast.arg):
        yield at.span("parameter", node, node.arg)
        if node.annotation:
            yield at.span("annotation", node.annotation)
    elif isinstance(node, ast.AnnAssign):
        yield at.span("annotation", node.annotation)
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            yield at.span("called name", node.func)
        elif isinstance(node.func, ast.Attribute):
            yield at.span("called name", node.func, node.func.attr, last=True)
    elif isinstance(node, ast.Attribute):
        yield at.span("attribute", node, node.attr, last=True)
    elif isinstance(node, ast.keyword) and node.arg:
        yield at.span("keyword argument", node, node.arg)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield at.span("in an import", node)
    elif isinstance(node, ast.Name) and node.id in BUILTINS:
        yield at.span("exception" if node.id in EXCEPTIONS else "builtin", node)
    elif isinstance(node, ast.ExceptHandler):
        yield at.span("in an except block", node)
    elif isinstance(node, ast.JoinedStr):
        yield at.span("f-string", node)


def _of_definition(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, at: _Characters) -> Iterator[Span]:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        yield at.span("docstring", first)
    if isinstance(node, ast.Module):
        return
    for decorator in node.decorator_list:
        yield at.span("decorator", decorator)
    if isinstance(node, ast.ClassDef):
        yield Span("in a class body", at.span("", node.body[0]).start, at.span("", node).end)
        return
    if node.returns:
        yield at.span("annotation", node.returns)
    if node.name.startswith("test"):
        yield at.span("in a test", node)
