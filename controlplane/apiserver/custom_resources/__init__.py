"""Serves what CustomResourceDefinitions define: `definitions.py` follows them, `webhook.py` converts by webhook."""
