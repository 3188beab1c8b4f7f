"""Assigns pods to nodes: filters rule nodes out, scores rank the rest, the pod is bound to the best.

`scheduler` is the loop; `queue` holds the pods that wait, `snapshot` what is known of nodes; all else is
pure.
"""
