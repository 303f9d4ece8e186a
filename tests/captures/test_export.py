"""Captures exported as pcapng, read with the library that wrote them. tests/wireshark reads them with Wireshark."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import evolve
from pcapng import FileScanner, blocks

from tests.captures.test_golden import FILES, load
from tests.cli.test_streams import shell
from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM, run_vhostcomm
from vchannel import Request
from vhostcomm.capture.export import COMMENT_LIMIT, LINKTYPE_UPPER_PDU, write_pcapng
from vhostcomm.capture.format import Capture, CaptureHeader, Direction, FrameRecord, Origin, format_capture
from vhostcomm.capture.redact_capture import redact
from vhostcomm.errors import CaptureError

SHORT = next(path for path in FILES if path.stem == "graceful-stop")
RECORD = FrameRecord(0.000001, Direction.TO_HOST, Request.of(5, request_id=1).frame)


def header(when: datetime = datetime(2026, 1, 2, tzinfo=UTC), **more: str) -> CaptureHeader:
    return CaptureHeader(when, more.get("producer", "test"), Origin.RECORDED, more.get("provenance", "from a test"))


def packets(written: bytes) -> tuple[blocks.SectionHeader, list[blocks.EnhancedPacket]]:
    section, *rest = FileScanner(io.BytesIO(written))
    (interface, *found) = rest
    assert isinstance(interface, blocks.InterfaceDescription)
    assert interface.link_type == LINKTYPE_UPPER_PDU
    return section, found


def pcapng(capture: Capture, path: str = "guest.jsonl") -> bytes:
    stream = io.BytesIO()
    write_pcapng(capture, stream, path)
    return stream.getvalue()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_record_is_exported_with_its_bytes_time_and_direction(path: Path) -> None:
    capture = load(path)
    section, found = packets(pcapng(capture, str(path)))
    assert section.options["opt_comment"].endswith(f"by {capture.header.producer}")
    assert section.options.get_all("opt_comment")[1] == capture.header.provenance
    assert len(found) == len(capture.records)
    for packet, record in zip(found, capture.records, strict=True):
        assert packet.packet_data.startswith(b"\0\x0c\0\x10vchannel_record\0\0\0\0\0")
        assert packet.packet_data.endswith(record.raw)
        micros = (packet.timestamp_high << 32) + packet.timestamp_low
        assert micros == round((capture.header.when.timestamp() + record.time) * 1_000_000)
        way = {Direction.TO_HOST: "inbound", Direction.TO_GUEST: "outbound"}[record.direction]
        assert packet.options["epb_flags"].inout == way


def test_redacted_values_are_not_exported() -> None:
    serial = "1234ABC567890"
    asked = Request.of(5, request_id=1)
    answer = FrameRecord(1, Direction.TO_GUEST, asked.reply(serial.encode() + b"\0").frame)
    capture = Capture(header(provenance=f"from {serial}"), (FrameRecord(0, Direction.TO_HOST, asked.frame), answer))
    assert pcapng(capture).count(serial.encode()) == 2
    redacted = pcapng(redact(capture))
    assert serial.encode() not in redacted
    assert ", redacted, " in packets(redacted)[0].options["opt_comment"]


def test_long_text_is_cut_and_control_characters_are_escaped() -> None:
    nasty = "a\x1b\ud800\n" + "é" * COMMENT_LIMIT
    record = evolve(RECORD, refused=nasty)
    section, (packet,) = packets(pcapng(Capture(header(producer=nasty, provenance=nasty), (record,)), f"{nasty[:9]}.x"))
    for comment in *section.options.get_all("opt_comment"), packet.options["opt_comment"]:
        assert r"a\x1b\ud800\né" in comment
        assert comment.endswith("é …")
        assert COMMENT_LIMIT <= len(comment.encode()) < 1 << 16


def test_an_incomplete_line_is_reported() -> None:
    section, _ = packets(pcapng(Capture(header(), (RECORD,), '{"t": 1')))
    assert section.options.get_all("opt_comment")[2] == "the capture's last line is cut off and left out"


@pytest.mark.parametrize(
    ("when", "time"), [(datetime(1969, 12, 31, tzinfo=UTC), 0.0), (datetime(2026, 1, 1, tzinfo=UTC), 1e300)]
)
def test_time_outside_pcapngs_range_is_rejected(when: datetime, time: float) -> None:
    stream = io.BytesIO()
    with pytest.raises(CaptureError, match=r"^x.jsonl:3: .* is not a time in pcapng, .* correct 'when'"):
        write_pcapng(
            Capture(header(when), (evolve(RECORD, time=86_400.0), evolve(RECORD, time=time))), stream, "x.jsonl"
        )
    assert not stream.getvalue()


# -- the verb


@pytest.mark.slow
def test_export_to_a_file_and_to_a_pipe(tmp_path: Path) -> None:
    made = tmp_path / "x.pcapng"
    assert run_vhostcomm("capture", "export", SHORT, "-o", made).returncode == 0
    for more in [], ["-o", "-"]:
        piped = subprocess.run(
            [*VHOSTCOMM, "capture", "export", SHORT, *more], env=ENVIRONMENT, capture_output=True, check=True
        )
        assert (piped.stdout, piped.stderr) == (made.read_bytes(), b"")
    assert len(packets(piped.stdout)[1]) == len(load(SHORT).records)


@pytest.mark.parametrize("verb", ["export", "redact"])
def test_existing_file_is_not_overwritten(verb: str, tmp_path: Path) -> None:
    made = tmp_path / "x"
    made.write_text("mine")
    ended = run_vhostcomm("capture", verb, SHORT, "-o", made)
    assert (ended.returncode, made.read_text()) == (1, "mine")
    assert ended.stderr == f"vhostcomm: {made}: already exists; choose another --output, or overwrite it with --force\n"
    assert run_vhostcomm("capture", verb, SHORT, "-o", made, "--force").returncode == 0
    assert len(packets(made.read_bytes())[1] if verb == "export" else load(made).records) == len(load(SHORT).records)


@pytest.mark.parametrize("verb", ["export", "redact"])
def test_a_device_needs_no_force(verb: str, tmp_path: Path) -> None:
    assert run_vhostcomm("capture", verb, SHORT, "-o", "/dev/null").returncode == 0
    assert run_vhostcomm("capture", verb, SHORT, "-o", tmp_path).stderr.endswith(
        "Is a directory; choose another place with --output\n"
    )


@pytest.mark.parametrize("verb", ["export", "redact"])
def test_a_link_is_not_removed_if_its_file_cannot_be_written(verb: str, tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    (link := tmp_path / "link").symlink_to(file)
    words = [
        "sh",
        "-c",
        'ulimit -f 0 && exec "$@"',
        "sh",
        *VHOSTCOMM,
        "capture",
        verb,
        str(SHORT),
        "-o",
        str(link),
        "--force",
    ]
    ended = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (ended.returncode, link.is_symlink()) == (1, True)
    assert ended.stderr.endswith(f"{link}: File too large; choose another place with --output\n")


def test_flag_in_the_place_of_a_file_is_rejected(tmp_path: Path) -> None:
    ended = run_vhostcomm("capture", "export", SHORT, "-o", "--force", cwd=tmp_path)
    assert (ended.returncode, list(tmp_path.iterdir())) == (2, [])
    assert ended.stderr.startswith("vhostcomm: --output takes a file, not --force; ")


@pytest.mark.parametrize("verb", ["export", "redact"])
@pytest.mark.parametrize(
    ("name", "why"), [("no/x.pcapng", "No such file or directory"), ("x" * 256, "File name too long")]
)
def test_unwritable_place_is_reported(verb: str, name: str, why: str, tmp_path: Path) -> None:
    ended = run_vhostcomm("capture", verb, SHORT, "-o", tmp_path / name)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.endswith(f"{why}; choose another place with --output\n")


@pytest.mark.parametrize("verb", ["export", "redact"])
def test_a_capture_is_not_overwritten_with_its_export(verb: str, tmp_path: Path) -> None:
    capture = tmp_path / "x.jsonl"
    capture.write_text(SHORT.read_text())
    ended = run_vhostcomm("capture", verb, capture, "--force", "-o", capture)
    assert (ended.returncode, capture.read_text()) == (2, SHORT.read_text())
    assert ended.stderr.startswith(f"vhostcomm: {capture} is the capture itself")


@pytest.mark.slow
def test_full_disk_leaves_no_partial_file(tmp_path: Path) -> None:
    made = tmp_path / "x.pcapng"
    for words, where in (('ulimit -f 8; exec "$@"', made), ('exec "$@"', Path("/dev/full"))):
        ended = shell(words, "capture", "export", str(SHORT), "--force", "-o", str(where))
        assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
        assert ended.stderr.startswith(f"vhostcomm: {where}: ")
        assert ended.stderr.endswith("; choose another place with --output\n")
    assert not made.exists()
    assert Path("/dev/full").is_char_device()


def test_invalid_time_leaves_the_old_file(tmp_path: Path) -> None:
    capture, made = tmp_path / "x.jsonl", tmp_path / "x.pcapng"
    old = evolve(load(SHORT), header=header(datetime(1900, 1, 1, tzinfo=UTC)))
    capture.write_text("".join(format_capture(old)))
    made.write_text("mine")
    ended = run_vhostcomm("capture", "export", capture, "--force", "-o", made)
    assert (ended.returncode, made.read_text()) == (1, "mine")
    assert ended.stderr.startswith(f"vhostcomm: {capture}:2: ")


@pytest.mark.slow
def test_files_other_than_captures_are_rejected(tmp_path: Path) -> None:
    """The error is the same as that of the other capture verbs, and no file is left."""
    made = tmp_path / "x.pcapng"
    for name, content in (("pcap", b"\xd4\xc3\xb2\xa1\x02\0"), ("json", b'{"a": 1}\n'), ("nothing", b"")):
        wrong = tmp_path / name
        wrong.write_bytes(content)
        ended = run_vhostcomm("capture", "export", wrong, "-o", made)
        shown = run_vhostcomm("capture", "show", wrong)
        assert (ended.returncode, ended.stderr) == (shown.returncode, shown.stderr)
        assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
        assert ended.stderr.startswith(f"vhostcomm: {wrong}:1: ")
        assert ended.stderr.endswith(": give a file that serve --record wrote\n")
        assert not made.exists()


@pytest.mark.slow
def test_pcapng_is_not_written_to_a_terminal() -> None:
    ours, theirs = pty.openpty()
    command = [*VHOSTCOMM, "capture", "export", str(SHORT)]
    ended = subprocess.run(
        command, env=ENVIRONMENT, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT, check=False
    )
    assert ended.returncode == 2
    assert "a terminal can't show pcapng; give a file with --output" in ended.stderr
    os.close(ours)
    os.close(theirs)


def test_a_cut_off_capture_is_exported_with_a_warning(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(format_capture(load(SHORT))) + '{"t": 9')
    ended = run_vhostcomm("capture", "export", cut, "-o", tmp_path / "x.pcapng")
    assert (ended.returncode, ended.stderr) == (0, f"vhostcomm: {cut}: the last line is cut off and left out\n")
    assert len(packets((tmp_path / "x.pcapng").read_bytes())[1]) == len(load(SHORT).records)


def test_other_verbs_do_not_import_the_library() -> None:
    words = "import sys; import vhostcomm.cli; sys.exit('pcapng' in sys.modules)"
    assert subprocess.run([VHOSTCOMM[0], "-c", words], env=ENVIRONMENT, check=False).returncode == 0


def test_dissector_is_at_the_path_in_the_help() -> None:
    place = "share/vhostcomm/wireshark"
    shown = " ".join(run_vhostcomm("capture", "export", "--help").stdout.split())
    assert f"{place} beside the bin of the installation" in shown
    assert (Path(sys.executable).parent.parent / place / "vchannel.lua").is_file()
