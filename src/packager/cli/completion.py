"""``packager completion``: print tab completion."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the tab completion for SHELL.

    \b
    bash: packager completion bash > ~/.local/share/bash-completion/completions/packager
    zsh:  packager completion zsh > "${fpath[1]}/_packager"
    fish: packager completion fish > ~/.config/fish/completions/packager.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "packager", "_PACKAGER_COMPLETE").source())
