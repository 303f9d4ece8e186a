# fish completion for vdsm_run, read at the first TAB behind the name.
# The script itself comes from the vhostcomm that is installed, so it always fits.
vhostcomm completion fish --program vdsm_run 2>/dev/null | source
