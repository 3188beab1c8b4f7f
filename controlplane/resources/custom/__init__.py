"""Custom resources: structural schemas and all that follows from them. Pure; see the README of `resources`."""
