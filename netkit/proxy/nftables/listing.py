"""The table as sections that can be shown and compared. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from netkit.kernel.nft import text
from netkit.kernel.nft.objects import Contents
from netkit.proxy.listing import Section


def sections(contents: Contents, family: int) -> Iterator[Section]:
    """Every chain, set and map. Elements that packets add to a set are not part of it."""
    for name, spec in contents.sets.items():
        if spec.anonymous:
            continue
        elements = () if spec.dynamic else text.element_texts(spec, contents.elements[name])
        kind = "map" if spec.is_map else "set"
        yield Section(f"{kind} {name}", tuple(elements), text.set_note(spec), ordered=False)
    for name, chain in contents.chains.items():
        rules = tuple(text.rule_text(rule, contents, family) for rule in contents.rules[name])
        yield Section(f"chain {name}", rules, text.chain_note(chain))
