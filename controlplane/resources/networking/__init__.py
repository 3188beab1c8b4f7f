"""The kinds of `networking.k8s.io`: policies, ingresses, and the ranges and addresses of Services."""
