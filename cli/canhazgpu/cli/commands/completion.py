"""`canhazgpu completion`: print the script for shell completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from canhazgpu.cli.exit_codes import exit_codes

PROGRAM_NAME = "canhazgpu"
COMPLETION_VARIABLE = "_CANHAZGPU_COMPLETE"
"""The variable through which click's scripts ask the program; click derives it from its name."""


@click.command(epilog=exit_codes())
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes canhazgpu's commands, options and values in SHELL.

    GPU ids, your reservations and the names of nodes are completed with those that
    there are, read from the ledger; where it does not answer there are none.

    \b
    Examples, each to be done once:
      canhazgpu completion bash > ~/.local/share/bash-completion/completions/canhazgpu
      canhazgpu completion zsh > ~/.zfunc/_canhazgpu    # with ~/.zfunc in $fpath
      canhazgpu completion fish > ~/.config/fish/completions/canhazgpu.fish

    \b
    For everybody on this machine:
      canhazgpu completion bash > /usr/share/bash-completion/completions/canhazgpu
      canhazgpu completion zsh > /usr/local/share/zsh/site-functions/_canhazgpu
      canhazgpu completion fish > /usr/share/fish/vendor_completions.d/canhazgpu.fish

    \b
    Only in the shell that is running:
      eval "$(canhazgpu completion bash)"               # zsh likewise
      canhazgpu completion fish | source
    """  # noqa: D301 - click reads the character: keep these lines
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click knows no completion for {shell}")
    click.echo(found(context.find_root().command, {}, PROGRAM_NAME, COMPLETION_VARIABLE).source())
