"""Text to paste into other tools so that they run a guest with vhostcomm, made from its configuration. Pure.

One module for each tool, which makes a `Snippet` of a guest's configuration and of QEMU's spelling of the machine.
Nothing here asks the machine it runs on.
"""
