"""vchannel imports only attrs and those modules of the standard library that do no input or output."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vchannel

ALLOWED = {
    "__future__", "attrs", "collections", "enum", "ipaddress", "json", "math", "re", "reprlib", "secrets", "struct", "typing", "vchannel",
}  # fmt: skip

FILES = sorted(Path(vchannel.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_vchannel_imports_no_input_or_output(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= ALLOWED
