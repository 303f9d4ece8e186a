"""Makes what is written from the program: `python -m tools` (`make docs`)."""
