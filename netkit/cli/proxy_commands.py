"""`netkit proxy`: kube-proxy on its own, against any cluster, and the commands that look into one."""

from __future__ import annotations

import typer

proxy_app = typer.Typer(
    name="proxy",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run kube-proxy on its own, or look into one that runs.",
)


def register(app: typer.Typer) -> None:
    """Put the group on the program's own app."""
    app.add_typer(proxy_app)


@proxy_app.callback()
def proxy() -> None:
    """Run kube-proxy on its own, or look into one that runs."""
