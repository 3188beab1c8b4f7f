"""From a container's config to the kernel layer's values. Pure but for the path of the scratch directory."""

from __future__ import annotations

from collections.abc import Sequence

from netkit.kernel.container import Bind, Credentials, Isolation, Program
from netkit.kernel.netns_directory import NETNS_DIRECTORY
from netkit.node.runtime.settings import RuntimeSettings
from netkit.node.runtime.spec import ContainerConfig, Processes


def program(config: ContainerConfig, argv: Sequence[str], *, terminal: bool) -> Program:
    """What to execute: `argv` with the container's environment, directory and user."""
    env = dict(config.env)
    if terminal:
        env.setdefault("TERM", "xterm")
    security = config.security
    return Program(
        argv=tuple(argv),
        env=env,
        workdir=config.workdir or "/",
        credentials=Credentials(
            security.uid, security.gid, security.groups, frozenset(security.capabilities)
        ),
    )


def isolation(config: ContainerConfig, settings: RuntimeSettings, neighbour: int = -1) -> Isolation:
    """Where it runs: the pod's network, its own everything else but what the config says is shared.

    `neighbour` is the pidfd of a process whose PID namespace it joins.
    """
    hidden = (settings.state_dir, *settings.hidden)
    return Isolation(
        network=f"{NETNS_DIRECTORY}/{config.network}",
        hostname=config.hostname,
        scratch=str(settings.scratch),
        root=config.root,
        binds=tuple(Bind(bind.source, bind.target, bind.read_only) for bind in config.binds),
        masked=tuple(str(path) for path in hidden) if config.root == "/" else (),
        read_only=config.security.read_only_root,
        own_processes=config.processes is not Processes.HOST,
        own_ipc=not config.host_ipc,
        neighbour=neighbour,
    )
