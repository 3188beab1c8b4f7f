"""`netkit proxy`: kube-proxy on its own, with kube-proxy's flags, and the group for commands that look into one.

The flags come from a table and are handed on as the texts they were given: they are read, and refused, as kube-proxy's
are.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from netkit.proxy.configuration.flag_table import FLAGS, Flag, Kind

_LIKE_KUBE_PROXY = "kube-proxy's flags"
_BY_OPTION = {f"--{flag.name}": flag for flag in FLAGS} | {
    f"-{flag.short}": flag for flag in FLAGS if flag.short
}


class _ProxyGroup(TyperGroup):
    """Takes flags as kube-proxy's library does: `--cleanup`, `--cleanup=false`, `-v=4`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_values(args))


proxy_app = typer.Typer(
    name="proxy",
    cls=_ProxyGroup,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND [ARGS]...]",
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Put the group on the program's own app."""
    app.add_typer(proxy_app)


def with_values(args: Sequence[str]) -> list[str]:
    """The arguments with a value behind each flag, up to a subcommand; a bare boolean means true."""
    found: list[str] = []
    rest = list(args)
    while rest and rest[0].startswith("-") and rest[0] != "--":
        name, equals, value = rest.pop(0).partition("=")
        flag = _BY_OPTION.get(name)
        if flag is None:
            found.append(f"{name}{equals}{value}")
        elif equals:
            found += [f"--{flag.name}", value]
        elif flag.kind is Kind.BOOL:
            found += [f"--{flag.name}", "true"]
        else:
            found += [f"--{flag.name}", *rest[:1]]
            rest = rest[1:]
    return found + rest


def _choices(flag: Flag) -> Callable[[str], list[str]]:
    """Tab completion of a flag's value."""

    def complete(incomplete: str) -> list[str]:
        choices: Sequence[str] = flag.choices
        if flag.name == "netns":
            from netkit.kernel.netns import names

            choices = names()
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _options() -> list[inspect.Parameter]:
    """The flags as parameters of a command."""
    return [
        inspect.Parameter(
            flag.name.replace("-", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None,
                typer.Option(
                    f"--{flag.name}",
                    *([f"-{flag.short}"] if flag.short else []),
                    metavar=flag.kind.value,
                    help=flag.help,
                    show_default=False,
                    autocompletion=_choices(flag),
                    rich_help_panel=_LIKE_KUBE_PROXY,
                ),
            ],
        )
        for flag in FLAGS
    ]


def proxy(context: typer.Context, **given: list[str] | None) -> None:
    """Run kube-proxy on its own, or look into one that runs.

    With flags, which are kube-proxy's, it works for the Node of this machine in any cluster, until SIGTERM: the rules
    stay then, and --cleanup removes them. It needs root, or CAP_NET_ADMIN. A changed --config file ends it.
    """
    if context.invoked_subcommand:
        return
    texts = {name.replace("_", "-"): values for name, values in given.items() if values}
    if not texts and "KUBERNETES_SERVICE_HOST" not in os.environ:
        print(context.get_help())
        return
    from netkit.proxy.standalone import run

    run(texts)


_SIGNATURE = inspect.Signature(
    [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *_options(),
    ]
)
proxy.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
proxy.__annotations__ = {name: item.annotation for name, item in _SIGNATURE.parameters.items()}
proxy_app.callback()(proxy)
