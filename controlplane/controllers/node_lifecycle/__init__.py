"""Node life cycle: notices nodes whose agent is silent and keeps the taints that follow from a node's
conditions.

`controller` is the loop, `taints` the pure rules. Evicting the pods is the taint eviction controller's part.
"""
