"""Generate pages from the program: ``python -m tools``."""

from __future__ import annotations

from tools.made import made


def main() -> None:
    for path, text in made().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(path)  # noqa: T201


main()
