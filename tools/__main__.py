"""Generate pages from the program: ``python -m tools``."""

from tools.made import PAGES, made

for path in PAGES:
    text = made(path)
    if path.read_text() != text:
        path.write_text(text)
        print(path)  # noqa: T201
