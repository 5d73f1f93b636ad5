"""`kvnet completion`: the script that teaches a shell our commands, options and names.

What fits is worked out by click in a `kvnet` that the script starts; the scripts are click's, but for two things: bash
breaks words at "=" and ":", which filters and addresses have, and fish must not take a comma for an end.
"""

from __future__ import annotations

import click

# The line up to the cursor is what counts; of what is offered bash wants only what comes after its own last break.
BASH = r"""_kvnet_completion() {
    local line=${COMP_LINE:0:COMP_POINT} words count current before completion kind value
    read -ra words <<< "$line"
    count=${#words[@]}
    current=""
    if [[ $line != *[[:space:]] ]]; then
        count=$((count - 1))
        current=${words[count]}
    fi
    before=""
    if [[ $COMP_WORDBREAKS == *=* && $current == *=* ]] || [[ $COMP_WORDBREAKS == *:* && $current == *:* ]]; then
        before=${current%"${current##*[=:]}"}
    fi
    COMPREPLY=()
    while IFS= read -r completion; do
        kind=${completion%%,*}
        value=${completion#*,}
        case $kind in
            dir) compopt -o dirnames 2> /dev/null ;;
            file) compopt -o default 2> /dev/null ;;
            plain)
                COMPREPLY+=("${value#"$before"}")
                [[ $value == *[=/] ]] && compopt -o nospace 2> /dev/null
                ;;
        esac
    done < <(env COMP_WORDS="$line" COMP_CWORD="$count" _KVNET_COMPLETE=bash_complete "$1" 2> /dev/null)
    return 0
}

complete -o nosort -F _kvnet_completion kvnet
"""
FISH_SPLITS = 'string split ","'


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
    if shell == "bash":
        click.echo(BASH, nl=False)
        return
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"no completion for {shell}")
    script = made(ctx.find_root().command, {}, "kvnet", "_KVNET_COMPLETE").source()
    click.echo(script.replace(FISH_SPLITS, 'string split -m 1 ","'))
