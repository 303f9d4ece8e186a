"""Generate pages from the program: ``python -m tools``."""

from __future__ import annotations

from tools.made import PAGES, made


def main() -> None:
    for path in PAGES:
        text = made(path)
        if path.read_text() != text:
            path.write_text(text)
            print(path)  # noqa: T201


main()
