"""Inputs that a fuzzer makes, for what reads strangers' bytes."""
