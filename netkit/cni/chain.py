"""Running a list's plug-ins one after the other, as the specification wants it of a runtime. Blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netkit.cni import delegate
from netkit.cni.cache import Cached
from netkit.cni.conflist import Conflist, plugin_config
from netkit.cni.delegate import Call
from netkit.cni.errors import CniError, Code, PluginFailed
from netkit.cni.request import Attachment, Command
from netkit.cni.versions import CHECK_SINCE, GC_SINCE, at_least
from netkit.kernel.netns import Namespace


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where plug-ins are (`path`) and run (`ns`), with what besides in their environment."""

    ns: Namespace | None
    path: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def add(self, cached: Cached, netns: str) -> Mapping[str, Any]:
        """Each plug-in gets what the one before it gave; what the last one gives. Raises PluginFailed at the first."""
        call = self._call(Command.ADD, cached, netns)
        result: Any = None
        for plugin in cached.conflist.plugins:
            kind = str(plugin["type"])
            result = delegate.ask(
                kind, call, plugin_config(cached.conflist, plugin, result, cached.capabilities)
            )
            if not isinstance(result, Mapping):
                raise PluginFailed(kind, Command.ADD, CniError(Code.UNDECODABLE, "it gave no result"))
        assert result is not None
        return result  # type: ignore[no-any-return]

    def check(self, cached: Cached, netns: str) -> None:
        """Raises PluginFailed for the first that finds something wrong. Nothing for lists without CHECK."""
        if not cached.conflist.can_check:
            return
        call = self._call(Command.CHECK, cached, netns)
        for plugin in cached.conflist.plugins:
            config = plugin_config(cached.conflist, plugin, cached.result, cached.capabilities)
            delegate.ask(str(plugin["type"]), call, config)

    def delete(self, cached: Cached, netns: str) -> None:
        """In reverse order; `netns` is "" when the namespace is gone. Raises PluginFailed at the first that fails."""
        call = self._call(Command.DEL, cached, netns)
        previous = cached.result if at_least(cached.conflist.version, CHECK_SINCE) else None
        for plugin in reversed(cached.conflist.plugins):
            config = plugin_config(cached.conflist, plugin, previous, cached.capabilities)
            delegate.ask(str(plugin["type"]), call, config)

    def collect(self, conflist: Conflist, valid: Iterable[Attachment]) -> None:
        """Have the plug-ins give back what they hold for other attachments than these; nothing for older lists.

        Asks all of them; raises an ExceptionGroup of PluginFailed.
        """
        if not at_least(conflist.version, GC_SINCE):
            return
        listed = [{"containerID": each.container, "ifname": each.interface} for each in valid]
        call = Call(Command.GC, Attachment("", ""), "", self.path, "", self.environment, self.ns)
        failed = []
        for plugin in conflist.plugins:
            config = plugin_config(conflist, plugin, None, {})
            try:
                delegate.ask(str(plugin["type"]), call, {**config, "cni.dev/valid-attachments": listed})
            except PluginFailed as error:
                failed.append(error)
        if failed:
            raise ExceptionGroup(f"GC of {conflist.name}", failed)

    def _call(self, command: Command, cached: Cached, netns: str) -> Call:
        return Call(command, cached.attachment, netns, self.path, cached.arguments, self.environment, self.ns)
