"""The man pages, made from the command line and the configuration's models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from tools import roff
from tools.settings import Setting, all_settings
from tools.texts import (
    ACTIVATION,
    ASKING_ENVIRONMENT,
    ASKING_FILES,
    EXAMPLES,
    EXIT_STATUS,
    FILES,
    QEMU_HOST,
    RUN_EXIT_STATUS,
    SERVE_EXIT_STATUS,
    SERVING_ENVIRONMENT,
    SETTINGS,
    VDSM_RUN,
)
from tools.verbs import Flag, Verb, command_line
from vhostcomm import __version__
from vhostcomm.qemu_host.flags import FLAGS

_Terms: TypeAlias = tuple[tuple[str, str], ...]


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    line = command_line()
    made = {"vhostcomm.1": _overview(line)}
    for verb in line.verbs:
        made[f"{'-'.join(verb.words)}.1"] = _verb(verb)
    made["vdsm_run.1"] = _vdsm_run()
    made["qemu-host.1"] = _qemu_host()
    made["vhostcomm.toml.5"] = _settings()
    return made


def _page(name: str, number: int, summary: str, *sections: str) -> str:
    return (
        roff.heading(name, number, __version__)
        + roff.section("Name", f"{roff.escape(name)} \\- {roff.inline(summary[0].lower() + summary[1:].rstrip('.'))}\n")
        + "".join(sections)
    )


def _overview(line: Verb) -> str:
    return _page(
        "vhostcomm", 1, "the host side of Virtual DSM's vchannel",
        roff.section("Synopsis", *(roff.bare(each.usage) for verb in line.verbs for each in verb.all() if not each.verbs)),
        roff.section("Description", roff.markdown(line.summary + "\n\n" + SETTINGS)),
        roff.section("Commands", *(roff.term(f"{'-'.join(verb.words)}(1)", verb.summary + _also(verb)) for verb in line.verbs)),
        roff.section(
            "Options",
            roff.term("--help, -h", "Show help. `vhostcomm help serve` is the same as `vhostcomm serve --help`."),
            roff.term("--version, -V", "Show the versions of vhostcomm, Python and QEMU; also `vhostcomm version`."),
        ),
        *_lists(EXIT_STATUS, (*SERVING_ENVIRONMENT, *ASKING_ENVIRONMENT[:1]), FILES),
        _examples("vhostcomm"),
        _see_also("vhostcomm.toml(5)", "qemu-host(1)", "vdsm_run(1)"),
    )  # fmt: skip


def _also(verb: Verb) -> str:
    return f" `vhostcomm {verb.alias}` is the same." if verb.alias else ""


def _verb(verb: Verb) -> str:
    name = "-".join(verb.words)
    verbs = [each for each in verb.all() if not each.verbs]
    body: list[str] = []
    if verb.verbs:
        body.append(roff.section("Description", roff.markdown(verb.summary)))
        body.append(roff.section("Commands", *(_one_of(each) for each in verbs)))
    else:
        body.append(roff.section("Description", roff.markdown(f"{verb.summary}{_also(verb)}\n\n{verb.text}")))
        body.append(roff.section("Options", *_flags(verb)))
    others = (
        "vhostcomm(1)", "vhostcomm.toml(5)" if any(each.words[-1] in {"serve", "run", "show"} for each in verbs) else "",
        "vhostcomm-serve(1)" if verb.words[-1] != "serve" else "vhostcomm-run(1)",
    )  # fmt: skip
    return _page(
        name, 1, verb.summary.partition(":")[0] if verb.words[-1] == "call" else verb.summary,
        roff.section("Synopsis", *(roff.bare(each.usage) for each in verbs)),
        *body,
        *_about(verb),
        _examples(name),
        _see_also(*others),
    )  # fmt: skip


def _one_of(verb: Verb) -> str:
    return roff.subsection(
        verb.words[-1], roff.markdown(f"{verb.summary}\n\n{verb.text}"), *_flags(verb, grouped=False)
    )


def _flags(verb: Verb, *, grouped: bool = True) -> Iterator[str]:
    for group in verb.groups:
        if grouped and len(verb.groups) > 1:
            yield roff.subsection(group.title)
        yield from map(_flag, group.flags)


def _flag(flag: Flag) -> str:
    meaning = [flag.meaning]
    if flag.default:
        meaning.append(f"By default `{flag.default}`.")
    elif flag.required and not flag.is_argument:
        meaning.append("Required.")
    return roff.term(flag.written, " ".join(meaning))


def _vdsm_run() -> str:
    return _page(
        "vdsm_run", 1, "start a guest's QEMU and answer what it asks",
        roff.section("Synopsis", roff.bare("vdsm_run [OPTIONS] [-- QEMU-ARGUMENT...]")),
        roff.section("Description", roff.markdown(VDSM_RUN)),
        *_lists(RUN_EXIT_STATUS, SERVING_ENVIRONMENT, FILES),
        _examples("vhostcomm-run", "vdsm_run"),
        _see_also("vhostcomm-run(1)", "vhostcomm.toml(5)"),
    )  # fmt: skip


def _qemu_host() -> str:
    def flags() -> Iterator[str]:
        group = ""
        for name, flag in FLAGS.items():
            if flag.group and flag.group != group:
                group = flag.group
                yield roff.subsection(group)
            if flag.group:
                default = f" By default `{flag.default}`." if flag.default else ""
                yield roff.term(f"-{name}", f"{flag.help[0].upper()}{flag.help[1:]}.{default}")

    return _page(
        "qemu-host", 1, "answer what one Virtual DSM guest asks its host, with the flags of the tool of that name",
        roff.section("Synopsis", roff.bare("qemu-host [-FLAG=VALUE | -FLAG VALUE ...]")),
        roff.section("Description", roff.markdown(QEMU_HOST)),
        roff.section("Options", *flags()),
        *_lists(SERVE_EXIT_STATUS, (), ()),
        _examples("qemu-host"),
        _see_also("vhostcomm(1)", "vhostcomm-serve(1)"),
    )  # fmt: skip


def _settings() -> str:
    sections = []
    headed = ""
    for each in all_settings():
        if each.section != headed:
            headed = each.section
            sections.append(roff.section(f"[{headed}]"))
        sections.append(_setting(each))
    return _page(
        "vhostcomm.toml", 5, "the configuration of vhostcomm",
        roff.section("Description", roff.markdown(SETTINGS)),
        *sections,
        *_lists((), (), FILES),
        _examples("vhostcomm.toml"),
        _see_also("vhostcomm(1)", "vhostcomm-config(1)", "vhostcomm-serve(1)"),
    )  # fmt: skip


def _setting(each: Setting) -> str:
    default = f" Default: {each.default}." if each.default else ""
    elsewhere = f"Also `{each.flag}`" + (f", `{each.environment.partition('=')[0]}`." if each.environment else ".")
    words = f"{each.help} Value: {each.format}.{default} {elsewhere} Takes effect {each.takes_effect}."
    return roff.term(f"{each.key} = {each.toml}", words)


def _about(verb: Verb) -> Iterator[str]:
    match verb.words[-1]:
        case "serve":
            return _lists(SERVE_EXIT_STATUS, (*SERVING_ENVIRONMENT, *ACTIVATION), FILES)
        case "run":
            return _lists(RUN_EXIT_STATUS, SERVING_ENVIRONMENT, FILES)
        case "config":
            return _lists(EXIT_STATUS, SERVING_ENVIRONMENT, ())
        case _:
            pass
    asks = any(flag.variables for group in verb.groups for flag in group.flags)
    return _lists(EXIT_STATUS, ASKING_ENVIRONMENT if asks else (), ASKING_FILES if asks else ())


def _lists(statuses: _Terms, environment: _Terms, files: _Terms) -> Iterator[str]:
    for title, terms in (("Exit status", statuses), ("Environment", environment), ("Files", files)):
        if terms:
            yield roff.section(title, *(roff.term(*each) for each in terms))


def _examples(name: str, called: str = "") -> str:
    if name not in EXAMPLES:
        return ""
    text = EXAMPLES[name].replace("vhostcomm run", called) if called else EXAMPLES[name]
    return roff.section("Examples", roff.markdown(text))


def _see_also(*others: str) -> str:
    named = (
        f"\\fB{roff.escape(page)}\\fR({rest}" for page, _, rest in (each.partition("(") for each in others if each)
    )
    return roff.section("See also", ",\n".join(named) + "\n")
