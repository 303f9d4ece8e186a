"""A supervisor as a process of its own: ``python -m tests.qemu.supervisor quiet|terminal ARGUMENT…``

Prints QEMU's pid when the guest has started. Then `quiet` does nothing. `terminal` lends the terminal to QEMU,
waits for a Ctrl-C, prints whether QEMU still runs, and kills QEMU.
"""

from __future__ import annotations

import fcntl
import signal
import sys
import termios

import trio

from vhostcomm.qemu.supervise import Qemu, Started


async def main(*words: str) -> None:
    mode, *argv = words
    if mode == "terminal":
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    has_begun = trio.Event()
    qemu = Qemu(
        argv, lambda notice: has_begun.set() if isinstance(notice, Started) else None, terminal=mode == "terminal"
    )
    with trio.open_signal_receiver(signal.SIGINT) as interrupts:
        async with trio.open_nursery() as nursery:
            await trio.to_thread.run_sync(lambda: None)  # leaves a worker thread that ends after 10 s
            await nursery.start(qemu.run)
            await has_begun.wait()
            say(str(qemu.pid))
            if mode == "quiet":
                await trio.sleep_forever()
            async for _ in interrupts:
                break
            status = await qemu.command("query-status")
            say(f"interrupted; QEMU is {status['status']}")
            qemu.send_signal(signal.SIGKILL)
            ending = await qemu.wait()
            say(f"ended: {ending.kind.value}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
