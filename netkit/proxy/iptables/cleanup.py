"""The document that removes every rule and chain of a kube-proxy in iptables mode, and nothing else.

Called when the proxy is taken away or another mode takes over. Pure: reads iptables-save, writes restore
input.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from netkit.proxy.iptables.chains import is_ours

_TARGET = re.compile(r" -j (KUBE-\S+)")


Kept = Collection[tuple[str, str]]
"""Tables with chains."""


def cleanup_document(saved: str, keep: Kept = ()) -> str:
    """Restore input (for --noflush) that removes what `saved`, of all tables, shows of ours; may be empty.

    Chains in `keep`, which another mode uses too, and jumps to them are left alone.
    """
    sections: list[str] = []
    chains: list[str] = []
    jumps: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            chains, jumps = [], []
            table = line
        elif line.startswith(":") and _is_to_go(table, line[1:].split(" ", 1)[0], keep):
            chains.append(line[1:].split(" ", 1)[0])
        elif line.startswith("-A ") and not is_ours(line.split(" ", 2)[1]):
            target = _TARGET.search(line)
            if target and _is_to_go(table, target[1], keep):
                jumps.append(f"-D {line[3:]}")
        elif line == "COMMIT" and (chains or jumps):
            declared = [f":{chain} - [0:0]" for chain in chains]
            gone = [f"-X {chain}" for chain in chains]
            sections.append("\n".join([table, *declared, *jumps, *gone, "COMMIT", ""]))
    return "".join(sections)


def _is_to_go(table: str, chain: str, keep: Kept) -> bool:
    return is_ours(chain) and (table[1:], chain) not in keep
