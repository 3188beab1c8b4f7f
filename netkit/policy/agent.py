"""NetworkPolicy on one node: watches policies, namespaces and pods, and keeps the node's rules right.

Run by the node's agent process with an identity that may list and watch, no more. While there is no policy, pods and
namespaces are not followed. The rules stay when this process or the API is away, and a restart adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from controlplane.client.backoff import Backoff
from controlplane.client.client import Client
from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.meta.objects import labels, name, namespace, uid
from controlplane.resources.catalog import NAMESPACE, NETWORK_POLICY, POD
from netkit.kernel.errors import KernelError, Unsupported
from netkit.policy.backend import PolicyBackend, Written
from netkit.policy.model import Address, Key, pod_addresses, pod_of, policy_of
from netkit.policy.selection import Changes, Selection

log = logging.getLogger(__name__)

FAILED, UNSUPPORTED, CHANGED = (
    "FailedToSyncNetworkPolicy",
    "NetworkPolicyUnsupported",
    "NetworkPolicyRulesChanged",
)
_ADMIT_SECONDS: Final = 10.0
_UNSUPPORTED_SECONDS: Final = 60.0

Report = Callable[[str, str], None]
"""Told reason and message of what users should hear of; becomes an Event on the Node."""


class NotIsolatedYet(Exception):
    """A pod that policies select cannot start: its rules do not stand. Try again."""


class PolicyAgent:
    """The policies of the node `node_name`, written by `backend`."""

    def __init__(self, client: Client, node_name: str, backend: PolicyBackend, report: Report) -> None:
        self._name = node_name
        self._backend = backend
        self._report = report
        self._selection = Selection(node_name)
        self._policies = Informer(client, NETWORK_POLICY)
        self._namespaces = Informer(client, NAMESPACE)
        self._pods = Informer(client, POD)
        self._sandboxes: dict[str, tuple[Address, ...]] = {}
        self._wanted = asyncio.Event()
        self._woken = asyncio.Event()
        self._settled = asyncio.Event()
        self._pod_seen = asyncio.Event()
        self._full = True
        self._broken = ""
        self._writing = False
        self._waiting: list[Callable[[], None]] = []

    async def run(self) -> None:
        """Work until cancelled. The rules stay."""
        self._policies.on_change(self._policy_changed)
        self._namespaces.on_change(self._namespace_changed)
        self._pods.on_change(self._pod_changed)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._policies.run(), name="policies")
            await self._policies.synced()
            if not self._selection:
                # What an earlier process left, when the last policy went while it was away.
                await self._sync_until_done()
            await self._wanted.wait()
            for informer in (self._namespaces, self._pods):
                group.create_task(informer.run(), name=f"policy {informer.kind.plural}")
            await self._namespaces.synced()
            await self._pods.synced()
            group.create_task(self._listen(), name="policy disturbances")
            while True:
                await self._sync_until_done()
                await self._woken.wait()

    async def settled(self) -> None:
        """Return once no change that the agent knows of waits to be written, or the kernel cannot do it at all."""
        await self._settled.wait()

    async def admit(self, pod: Key, pod_uid: str, addresses: Sequence[Address]) -> None:
        """Return once the pod, whose sandbox has these addresses, is isolated as the policies known now ask.

        Raises NotIsolatedYet when that does not come about in time. Where the kernel cannot do it at all that is
        reported, and pods run.
        """
        try:
            async with asyncio.timeout(_ADMIT_SECONDS):
                await self._policies.synced()
                if not self._selection.policies_in(pod[0]) or self._broken:
                    return
                self._sandboxes[pod_uid] = tuple(addresses)
                while (found := self._pods.get(*pod)) is None or uid(found) != pod_uid:
                    self._pod_seen.clear()
                    await self._pod_seen.wait()
                self._put(found)
                await self._settled.wait()
        except TimeoutError:
            raise NotIsolatedYet(f"{pod[0]}/{pod[1]}: its NetworkPolicies are not in force yet") from None

    def _policy_changed(self, old: Object | None, new: Object | None) -> None:
        found = new or old or {}
        key, policy = (namespace(found), name(found)), policy_of(new) if new is not None else None
        self._change(lambda: self._selection.set_policy(key, policy))

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        found = dict(labels(new)) if new is not None else None
        self._change(lambda: self._selection.set_namespace(name(new or old or {}), found))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            if pod_addresses(new):
                self._sandboxes.pop(uid(new), None)
            self._put(new)
            self._pod_seen.set()
        elif old is not None:
            self._sandboxes.pop(uid(old), None)
            key = namespace(old), name(old)
            self._change(lambda: self._selection.set_pod(key, None))

    def _put(self, pod: Object) -> None:
        key, found = (namespace(pod), name(pod)), pod_of(pod, self._sandboxes.get(uid(pod), ()))
        self._change(lambda: self._selection.set_pod(key, found))

    def _change(self, change: Callable[[], None]) -> None:
        """Change the selection; while it is being written, afterwards."""
        if self._writing:
            self._settled.clear()
            self._waiting.append(change)
            return
        change()
        if self._selection:
            self._wanted.set()
        if self._selection.changes:
            self._settled.clear()
            self._woken.set()

    async def _sync_until_done(self) -> None:
        """Write what is to be written, again and again until it works."""
        backoff = Backoff(0.1, 30.0)
        while True:
            self._woken.clear()
            changes = self._selection.collect()
            full, self._full = self._full, False
            began = time.perf_counter()
            try:
                written = await self._write(None if full else changes)
            except KernelError as error:
                self._full = True
                if isinstance(error, Unsupported) and not self._selection:
                    self._settled.set()
                    return
                delay = self._failed(error, backoff)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._woken.wait()
                continue
            self._broken = ""
            if written.messages:
                took = (time.perf_counter() - began) * 1000
                _log(self._name, changes, full, written.rules, took)
            if not self._selection.changes and not self._full:
                self._settled.set()
                return

    async def _write(self, changes: Changes | None) -> Written:
        self._writing = True
        try:
            return await self._backend.sync(self._selection, changes)
        finally:
            self._writing = False
            waiting, self._waiting = self._waiting, []
            for change in waiting:
                self._change(change)

    def _failed(self, error: KernelError, backoff: Backoff) -> float:
        """Say that it did not work; in how many seconds it is tried again."""
        hint = f" ({error.hint})" if error.hint else ""
        if isinstance(error, Unsupported):
            text = f"this kernel cannot enforce NetworkPolicy, pods are not isolated: {error}{hint}"
            if text != self._broken:
                log.error("%s: %s", self._name, text)
                self._report(UNSUPPORTED, text)
            self._broken = text
            # Nothing is left to wait for: pods that are just being admitted run as well.
            self._settled.set()
            return _UNSUPPORTED_SECONDS
        delay = backoff.next()
        text = f"policies could not be written: {error}{hint}"
        log.error("%s: %s; again in %.1f s", self._name, text, delay)
        self._report(FAILED, text)
        return delay

    async def _listen(self) -> None:
        """Mend what others do to our rules as soon as the kernel tells."""
        while True:
            try:
                what = await self._backend.disturbed()
            except KernelError as error:
                log.warning("%s: policy rules are not watched: %s", self._name, error)
                await asyncio.sleep(_UNSUPPORTED_SECONDS)
                continue
            log.warning("%s: %s; writing the policies anew", self._name, what)
            self._report(CHANGED, f"NetworkPolicy rules were changed by somebody ({what}); restoring them")
            self._full = True
            self._settled.clear()
            self._woken.set()


def _log(node: str, changes: Changes, full: bool, rules: int, milliseconds: float) -> None:
    if full:
        log.info("%s: policies: %d rules, synced in %.1f ms", node, rules, milliseconds)
        return
    log.info(
        "%s: policies: %d pods, %d policies, %d sets changed, synced in %.1f ms",
        node,
        len(changes.pods),
        len(changes.policies),
        len(changes.sets) + len(changes.members),
        milliseconds,
    )
