"""`kvnet completion`: the script that teaches a shell our commands and options."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    source <(kvnet completion bash)                                     # this shell; bash 4.4 or later
    kvnet completion zsh > "${fpath[1]}/_kvnet"                         # zsh
    kvnet completion fish > ~/.config/fish/completions/kvnet.fish       # fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(made(ctx.find_root().command, {}, "kvnet", "_KVNET_COMPLETE").source())
