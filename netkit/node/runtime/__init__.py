"""The workload process of a node: hosts builtin containers and is the parent of process containers.

One per node, apart from the agent, so that an agent's death kills no pod. Reached only through its Unix
socket.
"""
