"""Certificates for tests: a CA, and the files that it issues to hosts."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import trustme
from attrs import frozen

PAST = datetime(2020, 1, 1, tzinfo=UTC)


class TlsFiles(NamedTuple):
    """The files of one end of TLS."""

    ca: Path
    cert: Path
    key: Path


@frozen
class Authority:
    """A CA, with its files in a folder."""

    folder: Path
    ca: trustme.CA

    @classmethod
    def new(cls, folder: Path) -> Authority:
        folder.mkdir(exist_ok=True)
        made = cls(folder, trustme.CA())
        made.ca.cert_pem.write_to_path(str(folder / "ca.crt"))
        (folder / "ca.crt").chmod(0o644)
        return made

    def host(self, name: str, *names: str, expired: bool = False) -> TlsFiles:
        """The files of a host: its certificate has these names."""
        made = self.ca.issue_cert(*names, common_name=name, not_after=PAST if expired else None)
        files = TlsFiles(self.folder / "ca.crt", self.folder / f"{name}.crt", self.folder / f"{name}.key")
        files.cert.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        files.cert.chmod(0o644)
        files.key.touch(mode=0o600)
        made.private_key_pem.write_to_path(str(files.key))
        return files

    def withdraw(self, *withdrawn: TlsFiles, period: tuple[str, str] | None = None) -> None:
        """Add a list of withdrawn certificates to the file of the CA, as `openssl ca` makes it, valid in this period."""
        key, index, config = (self.folder / name for name in ("ca.key", "index.txt", "ca.conf"))
        self.ca.private_key_pem.write_to_path(str(key))
        index.touch()
        config.write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={index}\ndefault_md=sha256\n")
        openssl: list[str | Path] = [
            "openssl",
            "ca",
            "-config",
            config,
            "-cert",
            self.folder / "ca.crt",
            "-keyfile",
            key,
        ]
        for each in withdrawn:
            subprocess.run([*openssl, "-revoke", each.cert], check=True, capture_output=True)
        valid = ["-crl_lastupdate", period[0], "-crl_nextupdate", period[1]] if period else ["-crldays", "30"]
        made = subprocess.run([*openssl, "-gencrl", *valid], check=True, capture_output=True).stdout
        (self.folder / "ca.crt").write_bytes(self.ca.cert_pem.bytes() + made)


def flags(files: TlsFiles) -> list[str | Path]:
    """The flags of the command line, for daemons and verbs."""
    return ["--control-ca", files.ca, "--control-cert", files.cert, "--control-key", files.key]
