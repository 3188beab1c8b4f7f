"""`netkit`: the commands and their one place for errors. Heavy imports happen inside commands."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from netkit.cli import (
    api_commands,
    auth_commands,
    cluster_commands,
    cni_commands,
    image_commands,
    machine_commands,
    network_commands,
    node_commands,
    policy_commands,
    proxy_commands,
    proxy_inspection,
    proxy_mode_commands,
    segment_commands,
    topology_commands,
)
from netkit.cli.output import Format, print_error, print_json

app = typer.Typer(
    name="netkit",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Kubernetes networking you can run, see and understand on one machine.",
    epilog="First steps: sudo netkit up, then netkit status, then netkit kubectl -- get pods -A.",
)
cluster_commands.register(app)
machine_commands.register(app)
proxy_commands.register(app)
proxy_inspection.register(proxy_commands.proxy_app)
proxy_mode_commands.register(app)
app.add_typer(node_commands.app, name="node")
app.add_typer(segment_commands.app, name="segment")
app.add_typer(network_commands.app, name="network")
app.add_typer(topology_commands.app, name="topology")
app.add_typer(cni_commands.app, name="cni")
app.add_typer(image_commands.app, name="image")
app.add_typer(auth_commands.app, name="auth")
app.add_typer(api_commands.app, name="api")
app.add_typer(policy_commands.app, name="policy")


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the whole chain of an error.")
    ] = False,
) -> None:
    if verbose:
        os.environ["NETKIT_VERBOSE"] = "1"


@app.command()
def version(
    output: Annotated[Format, typer.Option("--output", "-o", help="text or json.")] = Format.TEXT,
) -> None:
    """Show the versions of the toolkit and of the Kubernetes API it serves."""
    from netkit import KUBERNETES_VERSION, VERSION

    value = {"netkit": VERSION, "kubernetes": KUBERNETES_VERSION, "python": sys.version.split()[0]}
    if output is Format.JSON:
        print_json(value)
    else:
        print(f"netkit {VERSION}, Kubernetes API {KUBERNETES_VERSION}, Python {value['python']}")


def run() -> None:
    """The console script: run the command, turn errors into one line and an exit code (1, or 130 for Ctrl-C)."""
    try:
        app(prog_name="netkit", standalone_mode=True)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 - the one place that turns what is left into a line
        if os.environ.get("NETKIT_VERBOSE"):
            traceback.print_exc()
        sys.exit(_report(error))


def _report(error: BaseException) -> int:
    """Print the error as a user should see it; a group prints each of its members."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            _report(member)
        return 1
    message = getattr(error, "message", "") or str(error) or type(error).__name__
    known = type(error).__module__.partition(".")[0] in ("netkit", "controlplane")
    hint = getattr(error, "hint", "")
    if not known:
        message = f"unexpected {type(error).__name__}: {message}"
        hint = "this is a bug; run it again with netkit -v and report what it prints"
    print_error(message.splitlines()[0], hint)
    return 1
