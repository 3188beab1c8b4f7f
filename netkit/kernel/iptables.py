"""Driver of the iptables programs inside one network namespace: restore, save, and single rules and chains.

Called by the proxy, by the pod network's masquerading and by whoever keeps rules of a machine. Rules are text
in iptables' own syntax; nothing here knows what they mean. Runs one program per call, never a shell, in a
thread, so that the loop goes on meanwhile.

Two implementations of iptables exist side by side, `legacy` and `nft`. They keep separate rule sets, both of
which the kernel obeys, so all parties of a machine must use the same one: `detect` follows what stands.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from netkit.kernel.errors import CommandFailed, Unsupported
from netkit.kernel.netns import Namespace
from netkit.kernel.process import Completed, run

LOCK_WAIT_SECONDS = 5
_RUN_SECONDS = 60.0
_RESTORE_SECONDS = 600.0
_ABSENT = 1
"""Exit status for a rule or chain that is not there; 2 is bad usage, 3 and 4 are refusals of the kernel."""

_FAILED_LINE = re.compile(r"(?:line:?|at line)\s*(\d+)")
_VERSION = re.compile(r"v(\d+)\.(\d+)(?:\.(\d+))?")
_CHAIN = re.compile(r"^:(\S+) ", re.MULTILINE)
_RULE = re.compile(r"^-A ", re.MULTILINE)
_USER_CHAIN = re.compile(r"^:\S+ - ", re.MULTILINE)
_KUBELET_CHAIN = re.compile(r"^:(?:KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY) ", re.MULTILINE)


class Variant(StrEnum):
    """Which implementation of iptables."""

    LEGACY = "legacy"
    NFT = "nft"


class IPTables:
    """iptables (or ip6tables, `version=6`) of the namespace `ns`.

    `variant` None means: find out at first use. `lock_file` is where the legacy programs take their lock; the
    default is one file for all namespaces of the machine, which makes nodes wait for each other.
    """

    def __init__(
        self,
        ns: Namespace,
        variant: Variant | None = None,
        *,
        version: int = 4,
        lock_file: Path | None = None,
    ) -> None:
        self.ns = ns
        self.version = version
        self._variant = variant
        self._environment = {"XTABLES_LOCKFILE": str(lock_file)} if lock_file else {}

    @cached_property
    def variant(self) -> Variant:
        """The implementation in use. Blocks on first use when it has to be detected; raises Unsupported."""
        return self._variant or detect(self.ns, self.version)

    @cached_property
    def program_version(self) -> tuple[int, ...]:
        """The version of the programs, e.g. (1, 8, 9). Blocks on first use."""
        text = self._run("iptables", ["--version"]).check(self.ns.name).stdout.decode()
        found = _VERSION.search(text)
        return tuple(int(part or 0) for part in found.groups()) if found else (0, 0, 0)

    @property
    def random_fully(self) -> bool:
        """Whether MASQUERADE knows --random-fully. Blocks on first use."""
        return self.program_version >= (1, 6, 2)

    async def restore(self, text: str, *, noflush: bool = True, counters: bool = False) -> None:
        """Load rules; each table in `text` is changed in one transaction, all of it or nothing.

        With `noflush`, chains that `text` does not declare stay as they are, and declared ones (`:NAME -
        [0:0]`) are made or emptied first. `counters` takes the numbers in brackets over. Raises KernelError
        whose hint holds the line that was refused.
        """
        arguments = [*self._wait]
        if noflush:
            arguments.append("--noflush")
        if counters:
            arguments.append("--counters")
        done = await asyncio.to_thread(
            self._run, "iptables-restore", arguments, text.encode(), _RESTORE_SECONDS
        )
        if done.returncode:
            stderr = done.stderr.decode(errors="replace").strip()
            raise CommandFailed(
                " ".join(done.argv), self.ns.name, done.returncode, stderr, _failing_line(stderr, text)
            )

    def refusal(self, text: str) -> str:
        """What the program says against rules it would not load, "" if it would. Loads nothing; blocks."""
        done = self._run("iptables-restore", [*self._wait, "--noflush", "--test"], text.encode())
        return done.stderr.decode(errors="replace").strip() if done.returncode else ""

    async def save(self, table: str = "") -> str:
        """The rules of a table (or of all that are in use) as iptables-restore would take them."""
        arguments = ["-t", table] if table else []
        done = await asyncio.to_thread(self._run, "iptables-save", arguments, b"", _RESTORE_SECONDS)
        return done.check(self.ns.name).stdout.decode()

    async def chains(self, table: str) -> frozenset[str]:
        """Names of all chains of a table, built-in ones included."""
        return chains_in(await self.save(table))

    async def chain_exists(self, table: str, chain: str) -> bool:
        """Whether there is a chain of that name."""
        return await self._succeeds(table, "-S", chain, "1")

    async def ensure_chain(self, table: str, chain: str) -> bool:
        """Make the chain unless it is there. True if it was made."""
        if await self.chain_exists(table, chain):
            return False
        await self._change(table, "-N", chain)
        return True

    async def rule_exists(self, table: str, chain: str, rule: Sequence[str]) -> bool:
        """Whether the chain holds this rule. `rule` is one argument per word, as a program gets them."""
        return await self._succeeds(table, "-C", chain, *rule)

    async def ensure_rule(self, table: str, chain: str, rule: Sequence[str], *, prepend: bool = True) -> bool:
        """Add the rule at the top (or end) of the chain unless the chain has it anywhere. True if added."""
        if await self.rule_exists(table, chain, rule):
            return False
        await self._change(table, "-I" if prepend else "-A", chain, *rule)
        return True

    async def delete_rule(self, table: str, chain: str, rule: Sequence[str]) -> bool:
        """Remove the rule once. False if it was not there."""
        if not await self.rule_exists(table, chain, rule):
            return False
        await self._change(table, "-D", chain, *rule)
        return True

    async def flush_chain(self, table: str, chain: str) -> bool:
        """Empty the chain. False if there is none of that name."""
        if not await self.chain_exists(table, chain):
            return False
        await self._change(table, "-F", chain)
        return True

    async def delete_chain(self, table: str, chain: str) -> bool:
        """Empty and remove the chain; nothing may jump to it. False if there was none of that name."""
        if not await self.flush_chain(table, chain):
            return False
        await self._change(table, "-X", chain)
        return True

    @property
    def _wait(self) -> tuple[str, str]:
        return ("-w", str(LOCK_WAIT_SECONDS))

    async def _succeeds(self, table: str, *arguments: str) -> bool:
        done = await asyncio.to_thread(self._run, "iptables", [*self._wait, "-t", table, *arguments])
        if done.returncode == _ABSENT:
            return False
        done.check(self.ns.name)
        return True

    async def _change(self, table: str, *arguments: str) -> None:
        done = await asyncio.to_thread(self._run, "iptables", [*self._wait, "-t", table, *arguments])
        done.check(self.ns.name)

    def _run(
        self, program: str, arguments: Sequence[str], input: bytes = b"", timeout: float = _RUN_SECONDS
    ) -> Completed:
        path = _program(program, self.variant, self.version)
        if path is None:
            raise _missing(self.ns, self.version)
        return run([path, *arguments], ns=self.ns, input=input, timeout=timeout, env=self._environment)


def detect(ns: Namespace, version: int = 4) -> Variant:
    """The implementation in use in `ns`, found as the images of Kubernetes find it.

    First the chains that every kubelet keeps in the mangle table tell, then whichever implementation has more rules
    (of both families together: a machine has one implementation), then user chains without rules. With nothing at
    all it is legacy where machine and kernel have it, because loading many rules takes it a fraction of the time.
    Blocks; Unsupported when the machine has no iptables.
    """
    installed = [variant for variant in Variant if _program("iptables-save", variant, version)]
    if not installed:
        raise _missing(ns, version)
    if len(installed) == 1:
        return installed[0]
    saved = {variant: "".join(_saved(ns, variant, family) for family in (4, 6)) for variant in Variant}
    for variant in (Variant.NFT, Variant.LEGACY):
        if _KUBELET_CHAIN.search(saved[variant]):
            return variant
    for sign in (_RULE, _USER_CHAIN):
        legacy, nft = (len(sign.findall(saved[variant])) for variant in (Variant.LEGACY, Variant.NFT))
        if legacy or nft:
            return Variant.LEGACY if legacy > nft else Variant.NFT
    return Variant.LEGACY if _legacy_works(ns, version) else Variant.NFT


def chains_in(saved: str, table: str = "") -> frozenset[str]:
    """Names of the chains in the output of `save`, of one table if it holds several."""
    return frozenset(_CHAIN.findall(table_in(saved, table) if table else saved))


def table_in(saved: str, table: str) -> str:
    """The part of the output of `save` that describes `table`; empty if there is none."""
    start = saved.find(f"*{table}\n")
    if start < 0:
        return ""
    end = saved.find("\nCOMMIT\n", start)
    return saved[start:end] if end >= 0 else saved[start:]


def installed_variants(version: int = 4) -> Mapping[Variant, str]:
    """The implementations of this machine and where their restore program is."""
    found = {variant: _program("iptables-restore", variant, version) for variant in Variant}
    return {variant: path for variant, path in found.items() if path}


def _saved(ns: Namespace, variant: Variant, version: int) -> str:
    """All tables in use; empty if they cannot be read. Asking makes no table: save prints only those in use."""
    path = _program("iptables-save", variant, version)
    if path is None:
        return ""
    return run([path], ns=ns, timeout=_RUN_SECONDS).stdout.decode(errors="replace")


def _legacy_works(ns: Namespace, version: int) -> bool:
    """Whether this kernel can do without nf_tables."""
    path = _program("iptables", Variant.LEGACY, version)
    return path is not None and run([path, "-t", "nat", "-S"], ns=ns, timeout=_RUN_SECONDS).returncode == 0


def _program(program: str, variant: Variant, version: int) -> str | None:
    """Path of e.g. `ip6tables-legacy-restore`. Users' PATHs often lack the sbin directories."""
    family = "ip6tables" if version == 6 else "iptables"
    name = program.replace("iptables", f"{family}-{variant}", 1)
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return shutil.which(name, path=path)


def _missing(ns: Namespace, version: int) -> Unsupported:
    family = "ip6tables" if version == 6 else "iptables"
    return Unsupported(family, ns.name, errno.ENOENT, hint="install the package iptables")


def _failing_line(stderr: str, text: str) -> str:
    """The line of the input that the program complains about, for the error's hint."""
    found = _FAILED_LINE.search(stderr)
    if not found:
        return ""
    number = int(found.group(1))
    lines = text.splitlines()
    return f"line {number}: {lines[number - 1]}" if 0 < number <= len(lines) else ""
