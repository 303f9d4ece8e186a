"""The model of a guest: evidence goes in, knowledge comes out. Pure: no event loop, no log and no clock."""
