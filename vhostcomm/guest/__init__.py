"""The model of a guest: evidence goes in, knowledge comes out. Pure: no event loop, no log and no clock.

Every decision that depends only on evidence and on a time that the caller passes belongs here.
"""
