"""The flags of qemu-host, and the configuration that they make."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Final

from vchannel import CpuInfo, HostVersion, MisuseError, VmmVersion
from vhostcomm import __version__
from vhostcomm.config.http_address import API, parse_api
from vhostcomm.config.identity import ZERO_SERIAL, GuestIdentity, HostIdentity, derived_uuid
from vhostcomm.config.models import Config, GuestConfig, Service
from vhostcomm.errors import UsageError
from vhostcomm.guest.answers import answers
from vhostcomm.qemu_host.api import DEFAULT_TIMEOUT
from vhostcomm.qemu_host.goflags import Flag, boolean, integer

NAME: Final = "guest"
"""The guest's name in messages; there is only one guest."""

SCRIPT: Final = "print.sh"
"""The script beside the program."""

SHOW_VERSION: Final = "show version"
"""The key for `-version` without a value."""

_WHERE, _GUEST, _HOST, _OLD = "Where", "The guest", "The host", "Names that older tools have for these"


def _timeout(text: str) -> int:
    seconds = integer(text)
    if not 0 < seconds < 1_000_000:
        raise ValueError("not a time in seconds")
    return seconds


FLAGS: Final = {
    "addr": Flag(
        API.parse,
        "where QEMU connects to: HOST:PORT, tcp:HOST:PORT, or unix:/PATH or /PATH, a unix socket. A stale "
        "socket is replaced; any other file is rejected",
        "0.0.0.0:12345",
        _WHERE,
    ),
    "api": Flag(
        API.parse,
        "where the HTTP API listens, in the same forms; any client that reaches it can power off the guest, so use a "
        "unix socket or 127.0.0.1:2210",
        ":2210",
        _WHERE,
    ),
    "timeout": Flag(
        _timeout, "seconds that a guest has to answer, unless the request has a timeout", f"{DEFAULT_TIMEOUT:g}", _WHERE
    ),
    "script": Flag(
        str,
        "the script to run when the guest starts, by default the one beside this program; empty for none",
        SCRIPT,
        _WHERE,
    ),
    "guestsn": Flag(str, "the guest's serial number; sent in upper case", ZERO_SERIAL, _GUEST),
    "cpu": Flag(integer, "the guest's number of CPUs", "1", _GUEST),
    "cpu_arch": Flag(str, 'the CPU\'s name, of three parts, as "NAME,,"', CpuInfo().name, _GUEST),
    "guestuuid": Flag(str, "the guest's UUID; by default derived from its serial number", "", _GUEST),
    "hostsn": Flag(str, "the host's serial number; sent in upper case", ZERO_SERIAL, _HOST),
    "mac": Flag(str, "the host's MAC address", HostIdentity().mac, _HOST),
    "model": Flag(str, "the host's model", HostIdentity().model, _HOST),
    "build": Flag(integer, "the build number of the host's DSM", str(HostVersion().build_number), _HOST),
    "fixNumber": Flag(integer, "its small fix number", str(HostVersion().small_fix_number), _HOST),
    "version": Flag(
        str,
        "the version of its Virtual Machine Manager; as the last word, without a value: show vhostcomm's version",
        VmmVersion().version,
        _HOST,
        alone=SHOW_VERSION,
    ),
    "ts": Flag(integer, "the build time of its Virtual Machine Manager", str(VmmVersion().timestamp), _HOST),
    "buildnumber": Flag(integer, "-build", "", _OLD),
    "vmmversion": Flag(str, "-version", "", _OLD),
    "vmmts": Flag(integer, "-ts", "", _OLD),
    "help": Flag(boolean, "this", "", ""),
    "h": Flag(boolean, "this", "", ""),
}

_HELP: Final = """\
usage: qemu-host [-FLAG=VALUE | -FLAG VALUE ...]

Answers what one Virtual DSM guest asks its host, and asks it through HTTP:

  curl 'http://127.0.0.1:2210/read?command=10'             the guest's settings and addresses
  curl 'http://127.0.0.1:2210/read?command=6&timeout=50'   shut it down, and wait up to 50 s for its answer
  curl 'http://127.0.0.1:2210/write?command=6'             the same without waiting

QEMU connects with

  -device virtio-serial-pci,id=virtio-serial0,bus=pci.0,addr=0x3
  -chardev socket,id=charchannel0,host=127.0.0.1,port=12345,reconnect=1      (or path=/PATH for a unix socket)
  -device virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0,id=channel0,name=vchannel
"""

_END: Final = """
What is asked and answered is written to standard output, errors to standard error. `print.sh` beside this
program, or the script of -script, is started when the guest first asks who it is, and again at each boot.
SIGTERM ends it. SIGINT and SIGHUP stay ignored if they were ignored at the start
(nohup, a script's &).
Exit status: 0 ended by a signal, 1 a socket that can't be made, 2 a mistake in the flags.
For several guests, a configuration file, logs and recordings: vhostcomm serve --help.
"""


def help_text() -> str:
    return _HELP + "".join(f"{line}\n" for line in _flag_lines()) + _END + f"This one is vhostcomm {__version__}'s.\n"


def _flag_lines() -> Iterator[str]:
    import textwrap

    group = ""
    for name, flag in FLAGS.items():
        if not flag.group:
            continue
        if flag.group != group:
            group = flag.group
            yield f"\n{group}:"
        default = f" [{flag.default}]" if flag.default else ""
        yield from textwrap.wrap(
            f"{flag.help}{default}", 100, initial_indent=f"  {'-' + name:<13} ", subsequent_indent=" " * 16,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip


def config_of(given: dict[str, Any]) -> Config:
    """Make the configuration of the flags. The guest's values are used as given; the guest interprets them.

    Raises:
        UsageError: a value doesn't fit into a frame.
    """

    def value(*names: str) -> Any:
        flag = FLAGS[names[0]]
        return next((given[name] for name in names if name in given), flag.parse(flag.default))

    try:
        host_serial, guest_serial = value("hostsn").upper(), value("guestsn").upper()
        host = HostIdentity(
            serial=host_serial,
            mac=value("mac").lower().replace("-", ":"),
            model=value("model"),
            build=value("build", "buildnumber"),
            fix=value("fixNumber"),
            vmm_version=value("version", "vmmversion"),
            vmm_timestamp=value("ts", "vmmts"),
            cluster_uuid=derived_uuid("h", host_serial),
        )
        guest = GuestIdentity(
            uuid=_uuid(value("guestuuid")) or derived_uuid("g", guest_serial),
            serial=guest_serial,
            cpu=value("cpu_arch"),
            vcpus=value("cpu"),
        )
        answers(host, guest)
    except (MisuseError, UnicodeEncodeError) as error:
        raise UsageError(f"no answer can be made from these flags: {error}") from None
    address = value("addr")
    if address == value("api"):
        raise UsageError(f"-addr and -api are both {address}: two sockets are needed")
    return Config(
        host,
        (GuestConfig(NAME, parse_api(address), guest),),
        # Existing scripts may send any command.
        Service(qemu_host_api=value("api"), control="none", log_level="warning", allow_dangerous=True),
    )


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return text
