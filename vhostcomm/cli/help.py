"""How help is shown: as cyclopts shows it, but for commands to paste."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from cyclopts.help import DefaultFormatter

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions


class HelpFormatter(DefaultFormatter):
    """Shows blocks of code as they stand: no colours behind them, no blank lines around, no blanks at their ends."""

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        from rich.markdown import CodeBlock, Markdown
        from rich.text import Text

        class Plain(CodeBlock):
            def __rich_console__(self, console: Console, options: ConsoleOptions) -> Any:
                code = Text(str(self.text).rstrip(), no_wrap=True, overflow="ignore")
                yield Text("\n").join(Text("    ") + line for line in code.split())

        class Page(Markdown):
            elements = {**Markdown.elements, "code_block": Plain, "fence": Plain}  # noqa: RUF012 - as the class above

        shown = getattr(description, "primary_renderable", None)
        if isinstance(shown, Markdown):
            description = Page(shown.markup)
        super().render_description(console, options, description)
        if description:
            console.print()


def shown_default(default: object) -> str | None:
    """A flag's default in help: nothing where it says nothing."""
    if default is None or default is False or default == "":
        return None
    if isinstance(default, Enum):
        return str(default.value)
    return f"{default:g}" if isinstance(default, float) else str(default)
