"""``hoster completion``: what makes a shell complete hoster's commands, options and VM names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    For bash: hoster completion bash > /etc/bash_completion.d/hoster
    """
    from hoster.cli.main import hoster

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(hoster, {}, "hoster", "_HOSTER_COMPLETE").source())
