"""The three patch formats as pure functions: none changes the object or the patch it is given."""
