"""What every kind with a pod inside it shares: defaults, validation and classification of `PodSpec`.

Used by Pod and by the kinds with a pod template. Pure: dictionaries in, causes or filled-in defaults out.
"""
