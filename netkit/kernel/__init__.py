"""The only package that changes the system: namespaces, links, rules, processes, and the ledger of them."""
