"""HTTP: what a running daemon tells, and does when asked."""
