"""The kinds this server knows: `Kind` values, one module per API group, gathered in `catalog`."""
