"""QEMU: detect its capabilities, build its command, and run it until the reason of its end is known.

`detect` asks a QEMU for its capabilities and `argv` turns a `machine` into a command, which `supervise` runs as a
`child` that dies with this process. `qmp` talks to QEMU, `stopping` stops it in stages, `ending` classifies its end,
and `restart` decides whether to start it again.
"""

from vhostcomm.qemu.argv import build, format_command
from vhostcomm.qemu.capabilities import Capabilities, MemoryLock, Program, Reconnect
from vhostcomm.qemu.detect import find_capabilities
from vhostcomm.qemu.ending import EXIT_CODES, Ending, EndKind, Stage
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
    PanicDevice,
    SerialFile,
    SerialTerminal,
    TapNet,
    TcpVchannel,
    UserNet,
    Vchannel,
    VhostDisk,
)
from vhostcomm.qemu.pause import Pause
from vhostcomm.qemu.pausing import DiskError, Paused, Resumed
from vhostcomm.qemu.qmp import (
    Qmp,
    QmpClosedError,
    QmpCommandError,
    QmpError,
    QmpEvent,
    QmpTimeoutError,
    connect,
)
from vhostcomm.qemu.restart import Restart, RestartPolicy, Restarts, RestartWhen, StayDown
from vhostcomm.qemu.stopping import Grace, PowerOff, StageBegun
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
    "EXIT_CODES",
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
    "MemoryLock",
    "Net",
    "Notice",
    "OutputLine",
    "PanicDevice",
    "Panicked",
    "Pause",
    "Paused",
    "PowerOff",
    "Program",
    "Qemu",
    "Qmp",
    "QmpClosedError",
    "QmpCommandError",
    "QmpError",
    "QmpEvent",
    "QmpLost",
    "QmpTimeoutError",
    "Rebooted",
    "Reconnect",
    "Restart",
    "RestartPolicy",
    "RestartWhen",
    "Restarts",
    "Resumed",
    "SerialFile",
    "SerialTerminal",
    "Stage",
    "StageBegun",
    "Started",
    "StayDown",
    "TapNet",
    "TcpVchannel",
    "UserNet",
    "Vchannel",
    "VhostDisk",
    "build",
    "connect",
    "find_capabilities",
    "format_command",
]
