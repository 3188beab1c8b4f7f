"""The kinds of `admissionregistration.k8s.io/v1`: webhook configurations, validating policies and their bindings."""
