"""Deployment: rolls out templates as ReplicaSets.

`controller` is the loop and `rollout` one reconcile with its API calls; `templates`, `revisions`, `sizes`,
`plan` and `status` are the pure rules (upstream v1.32).
"""
