"""`netkit cni`: the toolkit as a CNI plug-in, for runtimes outside its clusters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
    help="A CNI plug-in: attaches containers of containerd, podman or cnitool as pods are attached here.",
)


@app.callback()
def plugin(context: typer.Context) -> None:
    """A CNI plug-in: attaches containers of containerd, podman or cnitool as pods are attached here.

    Called with CNI_COMMAND and the rest of the specification's environment, and the configuration on standard input,
    this is the plug-in itself; runtimes find it as the program netkit-cni.
    """
    if context.invoked_subcommand is not None:
        return
    if "CNI_COMMAND" not in os.environ:
        print(context.get_help())
        return
    from netkit.cni.main import run

    run()


@app.command()
def install(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the runtime looks, e.g. /opt/cni/bin.")
    ],
) -> None:
    """Write the program netkit-cni into a directory of plug-ins. It runs this installation."""
    from netkit.cluster.errors import ClusterError
    from netkit.cni.install import install

    try:
        print(install(directory))
    except OSError as error:
        raise ClusterError(
            f"{directory}: {error.strerror or error}", "choose a directory that can be written"
        ) from None


@app.command()
def conf(
    name: Annotated[str, typer.Option(help="The network's name.")] = "netkit",
    attach: Annotated[
        str, typer.Option(metavar="bridge|ptp", help="How containers are attached.")
    ] = "bridge",
    subnet: Annotated[str, typer.Option(help="Where addresses come from.")] = "10.22.0.0/24",
    cni_version: Annotated[
        str, typer.Option(help="The specification's version, for older runtimes.")
    ] = "1.0.0",
) -> None:
    """Print a configuration list for the plug-in, with Debian's portmap behind it for published ports."""
    from netkit.cli.output import print_json
    from netkit.cluster.errors import ClusterError
    from netkit.cni.errors import CniError
    from netkit.cni.sample import conflist

    try:
        print_json(conflist(name, attach, subnet, cni_version))
    except CniError as error:
        raise ClusterError(error.message) from None
