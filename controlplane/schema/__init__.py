"""Types and documentation of the built-in kinds: decoding rules, merge keys and OpenAPI from one file."""
