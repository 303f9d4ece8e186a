"""Who may see the web page: one-time keys in links, and the cookies that they become."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from attrs import define, field

from vhostcomm.linux.private_files import replace_private

KEY_LIFE: Final = 3600.0
"""Seconds for which a link is valid: enough for a guest's boot, and for the user to return to the terminal."""

KEYS_MAX: Final = 16
"""Links that are valid at the same time; a further one replaces the oldest."""

COOKIE_LIFE: Final = 7 * 86400
"""Seconds for which a browser stays signed in."""

SECRET_SIZE: Final = 32


@define
class SignIn:
    """The keys and cookies of one web page.

    A key is valid once, in the process that made it. A cookie is valid as long as the secret is the same, so that an
    open page survives a restart of the daemon.

    Args:
        port: of the page. Browsers don't separate cookies by port, so it is part of their name.
        secret: signs the cookies.
    """

    port: int
    secret: bytes = field(repr=False)
    _keys: dict[bytes, float] = field(factory=dict, init=False, repr=False)
    """The end of each valid key on the monotonic clock, by the key's hash, so that a look-up takes no telling time."""

    def new_key(self) -> str:
        """Make a key."""
        key = secrets.token_urlsafe(SECRET_SIZE)
        while len(self._keys) >= KEYS_MAX:
            del self._keys[next(iter(self._keys))]
        self._keys[_digest(key)] = time.monotonic() + KEY_LIFE
        return key

    def use(self, key: str) -> bool:
        """Return whether a key is valid; it isn't any more afterwards."""
        return self._keys.pop(_digest(key), 0.0) > time.monotonic()

    def new_cookie(self) -> str:
        """Make the value of a Set-Cookie header."""
        value = f"{int(time.time()) + COOKIE_LIFE}.{secrets.token_urlsafe(12)}"
        return (
            f"{self._name}={value}.{self._signature(value)}; Max-Age={COOKIE_LIFE}; Path=/; HttpOnly; SameSite=Strict"
        )

    def accepts(self, headers: Iterable[bytes]) -> bool:
        """Return whether one of the cookies in a request's Cookie headers is valid."""
        for header in headers:
            for each in header.decode("latin-1").split(";"):
                name, _, value = each.strip().partition("=")
                if name == self._name and self._is_valid(value):
                    return True
        return False

    def _is_valid(self, cookie: str) -> bool:
        value, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode("latin-1"), self._signature(value).encode()):
            return False
        return int(value.partition(".")[0]) > time.time()

    def _signature(self, value: str) -> str:
        return hmac.new(self.secret, f"{self._name}={value}".encode("latin-1"), sha256).hexdigest()

    @property
    def _name(self) -> str:
        return f"vhostcomm-{self.port}"


def _digest(key: str) -> bytes:
    return sha256(key.encode("latin-1", "replace")).digest()


def kept_secret(path: Path) -> bytes:
    """Return the secret in a file of mode 0600; make the file if there is none that is ours alone.

    Raises:
        OSError: it can't be made.
    """
    with (
        suppress(OSError),
        open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file,  # noqa: PTH123 - of a descriptor
    ):
        found = os.fstat(file.fileno())
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if is_ours and len(secret := file.read(SECRET_SIZE + 1)) == SECRET_SIZE:
            return secret
    secret = secrets.token_bytes(SECRET_SIZE)
    replace_private(path, [secret], shared=True)
    return secret
