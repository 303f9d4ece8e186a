"""Explain why a machine is paused and what to do, from QEMU's answers. Pure. QEMU's answers are untrusted."""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

SHOWN: Final = 200
"""Maximum characters of a text from QEMU."""

DISKS_SHOWN: Final = 8

RESUMABLE: Final = frozenset({"paused", "io-error", "watchdog", "prelaunch", "suspended"})
"""States that QMP's `cont` ends, or `system_wakeup` for a suspended machine."""

TRANSIENT: Final = frozenset({"finish-migrate", "save-vm", "restore-vm"})
"""States that end by themselves, within seconds and without an event."""

MIGRATED: Final = "postmigrate"

_MEANS: Final = {
    "paused": ("a QMP or monitor client paused it", "vhostcomm resume {guest}"),
    "suspended": ("the guest put itself to sleep", "wake it: vhostcomm resume {guest}"),
    "watchdog": ("its watchdog expired", "look at its console; then vhostcomm resume {guest}"),
    "prelaunch": ("QEMU was started with -S", "vhostcomm resume {guest}"),
    MIGRATED: (
        "it was migrated to another QEMU, or saved to a file",
        "end this QEMU; resuming it here would run the guest twice on the same disks",
    ),
    "inmigrate": ("QEMU waits for an incoming migration", "start the migration, or end this QEMU"),
    "guest-panicked": ("the guest's kernel panicked", "reset it or end its QEMU"),
    "internal-error": ("QEMU or KVM can't continue", "read QEMU's log; then reset it or end its QEMU"),
    "shutdown": ("the guest powered itself off, and QEMU stays (-no-shutdown)", "end its QEMU"),
    "debug": ("a debugger paused it", "continue in the debugger"),
    "colo": ("it is a replica (COLO)", "leave it to the replication's own management"),
    "finish-migrate": ("a migration is being completed", "wait"),
    "save-vm": ("a snapshot is being saved", "wait"),
    "restore-vm": ("a snapshot is being loaded", "wait"),
}


@frozen
class DiskFailure:
    """A failed request of a disk. `name` is its file, or QEMU's name for it; `reason` is the host's error."""

    name: str
    reason: str
    full: bool


@frozen
class Pause:
    """A paused machine: QEMU's name of the state, the cause, and the remedy, with {guest} for the guest's name."""

    status: str
    cause: str
    remedy: str

    def remedy_for(self, guest: str) -> str:
        """Return the remedy, such as a command, for a guest of this name."""
        return self.remedy.replace("{guest}", guest)


def describe(status: str, failures: tuple[DiskFailure, ...] = ()) -> Pause:
    """Explain why a machine in this state, a RunState of QMP, is paused. For io-error, `failures` are its disks'."""
    if status == "io-error":
        return _io_error(failures)
    cause, remedy = _MEANS.get(status, (f"QEMU says {clean(status)}", "ask QEMU: query-status"))
    return Pause(status, cause, remedy)


def _io_error(failures: tuple[DiskFailure, ...]) -> Pause:
    if not failures:
        return Pause("io-error", "a disk's request failed", "fix the storage; then vhostcomm resume {guest}")
    cause = "; ".join(
        f"no space is left for disk {each.name} (nospace)" if each.full else f"disk {each.name} failed ({each.reason})"
        for each in failures
    )
    full = [each.name for each in failures if each.full]
    first = f"free space for {' and '.join(full)}" if full else "fix the storage (dmesg has the host's errors)"
    return Pause("io-error", cause, f"{first}; then vhostcomm resume {{guest}}")


def failures_of(blocks: Any, reasons: dict[str, str]) -> tuple[DiskFailure, ...]:
    """Find the failed disks in the untrusted answer to query-block.

    `reasons` are the host's errors by QEMU's name of the disk, from BLOCK_IO_ERROR.
    """
    found = []
    for each in blocks if isinstance(blocks, list) else []:
        if not isinstance(each, dict) or each.get("io-status") not in ("failed", "nospace"):
            continue
        full = each["io-status"] == "nospace"
        inserted = each.get("inserted")
        inserted = inserted if isinstance(inserted, dict) else {}
        names = _texts(each.get("device"), each.get("qdev"), inserted.get("node-name"))
        reason = next((reasons[name] for name in names if name in reasons), "nospace" if full else "failed")
        name = next(iter(_texts(inserted.get("file"), *names)), "?")
        found.append(DiskFailure(clean(name), clean(reason), full))
    return tuple(found[:DISKS_SHOWN])


def _texts(*values: object) -> list[str]:
    return [each for each in values if isinstance(each, str) and each]


def clean(text: str) -> str:
    """Make a text from QEMU short and printable, and remove the braces that `Pause.remedy_for` would replace."""
    text = "".join(each if each.isprintable() else "?" for each in text[:SHOWN])
    return text.replace("{", "(").replace("}", ")")
