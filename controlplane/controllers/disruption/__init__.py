"""The disruption controller: `budget` computes a PodDisruptionBudget's status (pure), `scales` finds out how many pods
there should be, `controller` is the loop.
"""
