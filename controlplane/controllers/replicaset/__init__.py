"""ReplicaSet: keeps the wanted number of pods. `controller` is the loop, `ranking` chooses which pods go
first.
"""
