"""`netkit exec`, `kubectl`, `kubeconfig` and `doctor`: work with a running cluster and with this machine."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated

import typer

from netkit.cli import completion
from netkit.cli.cluster_commands import OutputOption, ProfileOption
from netkit.cli.output import Format, Ink, print_error, print_json, table

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def register(app: typer.Typer) -> None:
    app.command("exec", context_settings=_PASS_ON)(execute)
    app.command(context_settings=_PASS_ON)(kubectl)
    app.command()(kubeconfig)
    app.command()(doctor)


def execute(
    context: typer.Context,
    machine: Annotated[
        str,
        typer.Argument(help="node1, client, control-plane, switch, ...", autocompletion=completion.machines),
    ],
    profile: ProfileOption = "lab",
) -> None:
    """Run a command on a machine of the cluster: netkit exec node1 -- ip route."""
    from netkit.cluster.errors import ClusterError
    from netkit.cluster.privilege import require_root
    from netkit.cluster.profile import Profile
    from netkit.kernel.enter import exec_in_namespace

    arguments = [argument for index, argument in enumerate(context.args) if index or argument != "--"]
    facts = Profile(profile).facts()
    found = facts.machine(machine)
    if found is None:
        raise ClusterError(
            f"cluster {profile} has no machine {machine}",
            "there are: " + ", ".join(m.name for m in facts.machines),
        )
    require_root()
    exec_in_namespace(found.namespace, found.name, arguments or [os.environ.get("SHELL") or "/bin/sh"])


def kubectl(context: typer.Context, profile: ProfileOption = "lab") -> None:
    """Run kubectl on a cluster: netkit kubectl -- get pods -A."""
    from netkit.cluster.profile import Profile

    path = Profile(profile).admin_kubeconfig
    Profile(profile).facts()
    program = shutil.which("kubectl")
    if program is None:
        print_error("kubectl is not installed", "on Debian: apt-get install kubernetes-client")
        raise typer.Exit(127)
    if not os.access(path, os.R_OK):
        print_error(f"{path} cannot be read by this user", "run it with sudo")
        raise typer.Exit(1)
    arguments = [argument for index, argument in enumerate(context.args) if index or argument != "--"]
    os.execv(program, [program, f"--kubeconfig={path}", *arguments])


def kubeconfig(profile: ProfileOption = "lab") -> None:
    """Print a kubeconfig that holds this cluster only."""
    from netkit.cluster.errors import ClusterError
    from netkit.cluster.profile import Profile

    Profile(profile).facts()
    try:
        print(Profile(profile).admin_kubeconfig.read_text(encoding="utf-8"), end="")
    except PermissionError:
        raise ClusterError(
            "the administrator's kubeconfig cannot be read by this user", "run it with sudo"
        ) from None


def doctor(output: OutputOption = Format.TEXT) -> None:
    """Show what this machine's kernel and programs can do, what needs it, and how to get what is missing.

    Exits with 1 when something is missing that every cluster needs.
    """
    from netkit.cluster.doctor import missing, modes, network_modes
    from netkit.kernel.probe import features

    found = features()
    lacking = missing(found)
    able, networks = modes(found), network_modes(found)
    if output is Format.JSON:
        told = {"ready": not lacking, "missing": lacking, "proxyModes": able, "networkModes": networks}
        print_json({**told, "features": found})
    else:
        ink = Ink(sys.stdout)
        rows = [("yes" if f.present else "no", f.name, f.detail, f.needed_by, f.how_to_get) for f in found]
        for line in table(["THERE", "FEATURE", "DETAIL", "NEEDED BY", "HOW TO GET IT"], rows).splitlines():
            print(ink.bad(line) if line.startswith("no ") else line)
        print()
        print(
            "A cluster can run here."
            if not lacking
            else f"No cluster can run here without: {', '.join(lacking)}."
        )
        print(f"Modes of kube-proxy that work here: {', '.join(able) or 'none'}.")
        print(f"Modes of the pod network that work here: {', '.join(networks)}.")
    if lacking:
        raise typer.Exit(1)
