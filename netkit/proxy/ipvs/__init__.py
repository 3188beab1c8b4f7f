"""The IPVS mode: virtual servers, sets, kube-ipvs0 and chains of kube-proxy's ipvs back end."""
