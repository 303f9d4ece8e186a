"""Mutants: functions with one fault each, made by mutmut and planted in the running process."""

from __future__ import annotations

import ast
import difflib
import functools
import gc
import importlib
import re
import sys
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).resolve().parent.parent.parent

Place = tuple[str, str]
"""The place of a function: the path of its file, and its qualified name, such as `Connection.send`."""


@frozen
class Mutant:
    """A function with a fault.

    Attributes:
        name: mutmut's name for it, after the module's.
        file: of the function.
        function: its qualified name.
        original: its source, and `source` with the fault. Both are indented as in the file.
    """

    name: str
    file: Path
    function: str
    original: str
    source: str

    @property
    def place(self) -> Place:
        return str(self.file), self.function

    @property
    def key(self) -> str:
        """Differs if the function, or the fault, differs."""
        return f"{self.name} {zlib.crc32((self.original + self.source).encode()):08x}"

    @property
    def difference(self) -> str:
        old, new = (textwrap.dedent(text).splitlines() for text in (self.original, self.source))
        where = str(self.file.relative_to(ROOT))
        return "\n".join(difflib.unified_diff(old, new, where, where, lineterm=""))


def mutants_of(file: Path) -> list[Mutant]:
    """Return all mutants of a file. mutmut's text has the functions `…__mutmut_orig`, `…__mutmut_1`, and so on."""
    text: str = (
        importlib.import_module("mutmut.mutation.file_mutation").mutate_file_contents(str(file), file.read_text()).code
    )
    lines = text.splitlines()
    sources: dict[str, dict[str, str]] = {}
    for scope, node in _functions(ast.parse(text)):
        if found := re.fullmatch(r"(x_|xǁ.*ǁ)(.+)__mutmut_(orig|\d+)", node.name):
            source = "\n".join(lines[node.lineno - 1 : node.end_lineno]).replace(node.name, found[2], 1)
            sources.setdefault(f"{scope}{found[2]} {found[1]}{found[2]}", {})[found[3]] = source
    made = []
    for key, versions in sources.items():
        function, name = key.split()
        original = versions.pop("orig")
        made += [
            Mutant(f"{module_of(file)}.{name}__mutmut_{number}", file, function, original, source)
            for number, source in versions.items()
        ]
    return made


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield a module's functions and methods, each after the prefix of its qualified name."""
    for scope, body in ("", tree.body), *((f"{e.name}.", e.body) for e in tree.body if isinstance(e, ast.ClassDef)):
        yield from ((scope, node) for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def module_of(file: Path) -> str:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return name.removeprefix("protocol.").removesuffix(".__init__")


def place_of(code: CodeType) -> Place:
    return code.co_filename, code.co_qualname


def lines_of(code: CodeType) -> set[int]:
    """Return the lines of a function's body, including nested functions."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    own = {line for *_, line in code.co_lines() if line} - {code.co_firstlineno}  # `def` runs at the import
    return own.union(*map(lines_of, inner))


def functions_at(places: set[Place]) -> dict[Place, list[FunctionType]]:
    """Find the functions. There are several if a class was created again, as attrs does for slots."""
    for file in {file for file, _ in places}:
        importlib.import_module(module_of(Path(file)))
    found: dict[Place, list[FunctionType]] = {}
    for each in gc.get_objects():
        if type(each) is FunctionType and place_of(each.__code__) in places:
            found.setdefault(place_of(each.__code__), []).append(each)
    return found


def caches() -> list[functools._lru_cache_wrapper[object]]:
    """Find the project's cached functions, because a cached result would hide a mutant."""
    kind = functools._lru_cache_wrapper
    return [each for each in gc.get_objects() if type(each) is kind and each.__module__ in sys.modules and _ours(each)]


def _ours(function: functools._lru_cache_wrapper[object]) -> bool:
    return function.__module__.partition(".")[0] in {"vchannel", "vhostcomm"}


def plant(mutant: Mutant, functions: list[FunctionType]) -> None:
    """Give functions the code and the defaults of a mutant."""
    scope, _, name = mutant.function.rpartition(".")
    source = f"class {scope}:\n{mutant.source}" if scope else mutant.source
    names = dict(functions[0].__globals__)
    code = compile(source, str(mutant.file), "exec")
    exec(code, names)  # annotations stay text: `compile` inherits this file's future
    made = vars(names[scope])[name] if scope else names[name]
    made = getattr(made, "__func__", made)  # __init_subclass__ and the like become class methods by their name
    for each in functions:
        each.__code__, each.__defaults__, each.__kwdefaults__ = made.__code__, made.__defaults__, made.__kwdefaults__
