"""A node's part in changes of the pod network's mode: follows the cluster's choice and says how it went.

Run by the node's agent, beside the pod network's own loop. Each step of a change is a choice of its own: who makes it
(`network_mode`) waits for all nodes before the next.
"""

from __future__ import annotations

import logging
import time

from controlplane.client.transport import ConnectionFailed
from controlplane.errors import StatusError
from netkit.cluster.network_choice import Choice, ChoiceFile, Outcome, OutcomeFile
from netkit.cluster.outcome import State
from netkit.kernel.errors import KernelError
from netkit.kernel.file_watch import FileWatch
from netkit.podnet.agent import PodNetworkAgent, RouteNowhere
from netkit.podnet.modes import Setting

log = logging.getLogger(__name__)


class NodeNetwork:
    """The follower of one node. `first` is the mode as long as nobody chose another."""

    def __init__(self, choices: ChoiceFile, outcomes: OutcomeFile, first: Setting) -> None:
        self._choices = choices
        self._outcomes = outcomes
        self._first = first

    def choice(self) -> Choice:
        """What is wished now."""
        return self._choices.read() or Choice(self._first)

    async def run(self, agent: PodNetworkAgent) -> None:
        """Work until cancelled."""
        self._choices.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileWatch(self._choices.path) as watch:
            await agent.ready()
            while True:
                await self._follow(self.choice(), agent)
                await watch.changed()

    async def _follow(self, choice: Choice, agent: PodNetworkAgent) -> None:
        began = time.monotonic()
        state, error = State.SERVING, ""
        if choice.setting != agent.setting:
            self._report(choice, State.SWITCHING, agent)
        try:
            await agent.use(choice.setting)
        except (RouteNowhere, KernelError, StatusError, ConnectionFailed, OSError) as failure:
            log.error("mode %s of the pod network: %s", choice.setting, failure)
            state, error = State.FAILED, str(failure)
        self._report(choice, state, agent, time.monotonic() - began, error)

    def _report(
        self, choice: Choice, state: State, agent: PodNetworkAgent, seconds: float = 0.0, error: str = ""
    ) -> None:
        self._outcomes.write(
            Outcome(
                choice.asked,
                state,
                agent.setting,
                agent.network.mtu,
                round(seconds, 3),
                error,
                agent.encryption,
            )
        )
