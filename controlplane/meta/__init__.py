"""What every Kubernetes object shares: names, labels, quantities, times, owners and patches. Pure."""
