"""The program's messages, from its sources: warnings and errors of the log, and messages of exceptions."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from typing import Final

from tests.docs.pages import ROOT

LEVELS: Final = {"warning", "error", "exception", "critical"}

LOGS: Final = ("log", "lines", "connection_log", "client_log")
"""Suffixes of the names of logs and of rate-limited logs."""


@functools.cache
def sources() -> list[tuple[str, ast.Module]]:
    paths = sorted((ROOT / "vhostcomm").rglob("*.py"))
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text())) for path in paths]


@functools.cache
def logged() -> dict[str, str]:
    """Yield every warning and error of the log, with its place in the sources."""
    return dict(_logged())


def _logged() -> Iterator[tuple[str, str]]:
    for name, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            called, first = node.func, node.args[0]
            if called.attr in LEVELS | {"repeated"} and ast.unparse(called.value).endswith(LOGS):
                if isinstance(first, ast.Name):  # a rate-limited log passes its argument on
                    continue
                assert isinstance(first, ast.Constant), f"{name}:{node.lineno}: {ast.unparse(first)}: not a plain text"
                yield str(first.value), f"{name}:{node.lineno}"


def texts() -> Iterator[tuple[str, str]]:
    """Yield every constant text of a call that logs or makes an error, with its place in the sources."""
    for name, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Attribute):
                found = ast.unparse(node.func.value).endswith(LOGS)
            else:
                found = ast.unparse(node.func).endswith(("Error", "Problem"))
            if found:
                arguments = [*node.args, *(each.value for each in node.keywords)]
                for each in (each for argument in arguments for each in ast.walk(argument)):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        yield f"{name}:{each.lineno}", each.value


def raised(kinds: set[str]) -> dict[str, str]:
    """Yield the longest constant part of each message of these errors, with its place in the sources."""
    found = {}
    for name, tree in sources():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds):
                continue
            pieces = [
                each.value.strip(" :;(),'")
                for argument in node.args
                for each in ast.walk(argument)
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            ]
            if pieces:
                found[max(pieces, key=len)] = f"{name}:{node.lineno}"
    return found
