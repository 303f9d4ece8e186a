"""Generate pages from the program: `python -m tools` (`make docs`)."""
