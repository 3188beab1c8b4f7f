"""DaemonSet: one pod on every node that should have one.

`controller` is the loop and `sync` one reconcile with its API calls, `history` keeps the ControllerRevisions;
`placement`, `pods`, `plan` and `status` are the pure rules (upstream v1.32).
"""
