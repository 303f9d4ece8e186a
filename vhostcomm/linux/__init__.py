"""What other packages need of Linux: processes, signals, threads for calls that may block, private files, its errors.

Whatever asks the operating system and knows neither guests nor the protocol belongs here.
"""
