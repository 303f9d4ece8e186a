"""QEMU: detect its capabilities, build its command, and run it until the reason of its end is known.

`detect` asks a QEMU for its capabilities and `argv` turns a `machine` into a command, which `supervise` runs as a
`child` that dies with this process. `qmp` talks to QEMU, `stopping` stops it in stages, `ending` classifies its end,
and `restart` decides whether to start it again.
"""

from vhostcomm.qemu.argv import build, format_command
from vhostcomm.qemu.capabilities import Capabilities, Program
from vhostcomm.qemu.detect import find_capabilities
from vhostcomm.qemu.ending import Ending, EndKind
from vhostcomm.qemu.machine import (
    Accelerator,
    AnyDisk,
    AnyVchannel,
    BridgeNet,
    DirectKernel,
    Disk,
    Forward,
    Machine,
    Net,
    PasstNet,
    SerialFile,
    SerialTerminal,
    TapNet,
    UserNet,
    Vchannel,
    VhostDisk,
)
from vhostcomm.qemu.pausing import DiskError, Paused, Resumed
from vhostcomm.qemu.qmp import (
    Qmp,
    QmpError,
    QmpEvent,
)
from vhostcomm.qemu.restart import Restart, RestartPolicy, Restarts, RestartWhen
from vhostcomm.qemu.stopping import Grace, StageBegun
from vhostcomm.qemu.supervise import (
    Notice,
    OutputLine,
    Panicked,
    Qemu,
    QmpLost,
    Rebooted,
    Started,
)

__all__ = [
    "Accelerator",
    "AnyDisk",
    "AnyVchannel",
    "BridgeNet",
    "Capabilities",
    "DirectKernel",
    "Disk",
    "DiskError",
    "EndKind",
    "Ending",
    "Forward",
    "Grace",
    "Machine",
    "Net",
    "Notice",
    "OutputLine",
    "Panicked",
    "PasstNet",
    "Paused",
    "Program",
    "Qemu",
    "Qmp",
    "QmpError",
    "QmpEvent",
    "QmpLost",
    "Rebooted",
    "Restart",
    "RestartPolicy",
    "RestartWhen",
    "Restarts",
    "Resumed",
    "SerialFile",
    "SerialTerminal",
    "StageBegun",
    "Started",
    "TapNet",
    "UserNet",
    "Vchannel",
    "VhostDisk",
    "build",
    "find_capabilities",
    "format_command",
]
