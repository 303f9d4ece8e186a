"""QEMU: which one, the machine as a command, and running it from its start to the reason of its end.

`probe` asks a QEMU what it can do, `argv` makes a `machine` its command, `supervise` runs that:
a `child` that dies with us, `qmp` to talk with it, `stopping` in stages, an `ending` that is known,
and `restart` to decide what comes then.
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
