"""HorizontalPodAutoscaler in its two versions: `v2` is stored, `v1` is converted."""
