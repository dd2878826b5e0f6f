"""`uic doctor`: what is installed, and what is missing."""

from __future__ import annotations

import typer
from rich.table import Table

from uic_plugin.cli.common import terminal


def doctor() -> None:
    """What is installed, which host was found, what is missing."""
    from uic_plugin.hosts.doctor import examine

    findings, healthy = examine()
    table = Table("what", "found", "state")
    for finding in findings:
        table.add_row(finding.name, finding.found, finding.state)
    terminal().print(table)
    for finding in findings:
        if finding.remedy:
            terminal().print(f"{finding.name}: {finding.remedy}")
    raise typer.Exit(0 if healthy else 1)
