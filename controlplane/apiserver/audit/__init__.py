"""The audit log: `policy` decides how much is told of a request (pure), `events` makes the events (pure), `log` is the
observer that writes them as JSON lines."""
