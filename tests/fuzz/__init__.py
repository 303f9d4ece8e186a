"""Fuzzing of the code that reads untrusted bytes."""
