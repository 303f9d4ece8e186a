# fish completion for vhostcomm, read at the first TAB behind the name.
# The script itself comes from the vhostcomm that is installed, so it always fits.
vhostcomm completion fish 2>/dev/null | source
