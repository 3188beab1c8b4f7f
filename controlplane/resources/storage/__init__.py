"""The kinds of `storage.k8s.io`: classes of storage, drivers, and what is attached where."""
