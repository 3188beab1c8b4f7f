"""Requests nobody would send: made from our own OpenAPI documents, and what must hold for every answer."""
