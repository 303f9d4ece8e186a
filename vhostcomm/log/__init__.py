"""Log lines, and the thread that writes them: whoever logs never waits for a full pipe.

Every room that does something may log; rooms of values do not.
"""
