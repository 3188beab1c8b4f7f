"""`netkit auth`: who may do what in a cluster, and why."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from netkit.cli.cluster_commands import OutputOption, ProfileOption
from netkit.cli.output import Format, Ink, print_json, table

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Who may do what in a cluster, and which rule or authorizer decides.",
)

_VERBS = (
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "impersonate",
    "bind",
    "escalate",
    "use",
    "approve",
    "sign",
    "*",
)
_USERS = (
    "kubernetes-admin",
    "system:anonymous",
    "system:kube-controller-manager",
    "system:kube-proxy",
    "system:kube-scheduler",
    "system:node:node1",
    "system:serviceaccount:default:default",
)


def _verbs(incomplete: str) -> list[str]:
    return [verb for verb in _VERBS if verb.startswith(incomplete)]


def _users(incomplete: str) -> list[str]:
    return [user for user in _USERS if user.startswith(incomplete)]


def _resources(incomplete: str) -> list[str]:
    from controlplane.resources.catalog import SERVED

    return sorted({kind.plural for kind in SERVED if kind.plural.startswith(incomplete)})


VerbArgument = Annotated[str, typer.Argument(help="get, list, create, ...", autocompletion=_verbs)]
ResourceArgument = Annotated[
    str,
    typer.Argument(
        help="pods, deploy, deployments.apps, pods/log, or a path: /healthz", autocompletion=_resources
    ),
]
NameArgument = Annotated[str, typer.Argument(help="One object.", show_default=False)]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", metavar="NS", help="The namespace.")]
AllOption = Annotated[bool, typer.Option("--all-namespaces", "-A", help="In all namespaces at once.")]
SubresourceOption = Annotated[str, typer.Option(metavar="NAME", help="log, exec, scale, status, ...")]


@app.command()
def explain(
    user: Annotated[
        str, typer.Argument(help="alice, system:serviceaccount:NS:NAME, ...", autocompletion=_users)
    ],
    verb: VerbArgument,
    resource: ResourceArgument,
    name: NameArgument = "",
    namespace: NamespaceOption = "default",
    all_namespaces: AllOption = False,
    as_group: Annotated[
        list[str] | None, typer.Option(metavar="G", help="A group of the user; may be repeated.")
    ] = None,
    subresource: SubresourceOption = "",
    field_selector: Annotated[
        str, typer.Option(metavar="SELECTOR", help="For list and watch: spec.nodeName=node1.")
    ] = "",
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """Say whether a user may do something, and which rule, binding, role or authorizer decides.

    Exits with 0 when it is allowed and with 1 when it is not.
    """
    from netkit.cluster.authorization import Action, explain

    action = Action(verb, resource, name, "" if all_namespaces else namespace, subresource, field_selector)
    value = explain(profile, user, as_group or [], action)
    if output is Format.JSON:
        print_json(value)
    else:
        _print_explanation(value)
    if not value["allowed"]:
        raise typer.Exit(1)


def _print_explanation(value: dict[str, Any]) -> None:
    ink = Ink(sys.stdout)
    answer = ink.good("yes") if value["allowed"] else ink.bad("no")
    print(f"{answer}: {value['user']} {'may' if value['allowed'] else 'may not'} {value['action']}")
    if not value["known"]:
        print(ink.dim("    the server serves no such resource; it was taken as it is written"))
    print(f"  groups      {', '.join(value['groups'])}")
    if value["allowed"]:
        _print_grant(value)
        return
    for opinion in value["opinions"]:
        why = opinion["reason"] or opinion["error"]
        print(f"  {opinion['authorizer']:<11} {opinion['decision']}{': ' + why if why else ''}")
    bindings = value.get("bindings", [])
    if not bindings:
        if "bindings" in value:
            print("  RBAC        no binding concerns this user here")
        return
    print("\nBindings the user has here, the nearest first:")
    for binding in bindings:
        print(f"  {_binding(binding)}")
        if binding["error"]:
            print(f"      {ink.bad(binding['error'])}")
        for rule in binding["nearest"]:
            print(f"      {rule}")


def _print_grant(value: dict[str, Any]) -> None:
    print(f"  decided by  {value['authorizer']}")
    binding = value.get("binding")
    if binding:
        print(f"  binding     {binding['kind']} {_named(binding)}")
        print(f"  role        {binding['role']['kind']} {binding['role']['name']}")
        print(f"  rule        {value['ruleText']}")
    elif value["reason"]:
        print(f"  reason      {value['reason']}")


def _named(binding: dict[str, Any]) -> str:
    return f"{binding['namespace']}/{binding['name']}" if binding["namespace"] else str(binding["name"])


def _binding(binding: dict[str, Any]) -> str:
    role = binding["role"]
    return f"{binding['kind']} {_named(binding)} -> {role['kind']} {role['name']}"


@app.command("who-can")
def who_can(
    verb: VerbArgument,
    resource: ResourceArgument,
    name: NameArgument = "",
    namespace: NamespaceOption = "default",
    all_namespaces: AllOption = False,
    subresource: SubresourceOption = "",
    profile: ProfileOption = "lab",
    output: OutputOption = Format.TEXT,
) -> None:
    """List everybody whom RBAC allows something, and by which binding and role."""
    from netkit.cluster.authorization import Action, who_can

    value = who_can(profile, Action(verb, resource, name, "" if all_namespaces else namespace, subresource))
    if output is Format.JSON:
        print_json(value)
        return
    rows = [
        (
            subject["kind"],
            f"{subject['namespace']}/{subject['name']}" if subject["namespace"] else subject["name"],
            _binding(subject["binding"]) if "binding" in subject else "always",
        )
        for subject in value["subjects"]
    ]
    print(table(["KIND", "SUBJECT", "BY"], rows))
    others = [mode for mode in value["authorizers"] if mode != "RBAC"]
    if others:
        print(f"\nAsked beside RBAC, not listed here: {', '.join(others)}.")
