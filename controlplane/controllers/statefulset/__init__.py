"""StatefulSet: numbered pods with names and volumes that stay.

`controller` is the loop and `sync` one reconcile with its API calls, `history` keeps the ControllerRevisions;
`identity`, `claims`, `plan` and `status` are the pure rules (upstream v1.32).
"""
