"""Log messages, and the thread that writes them, so that logging never waits for a full pipe.

Any package that does something may log; packages of pure values do not.
"""
