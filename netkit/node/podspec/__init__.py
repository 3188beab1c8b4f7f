"""From a pod's spec to what its containers see: environment, files, volumes, the runtime's config."""
