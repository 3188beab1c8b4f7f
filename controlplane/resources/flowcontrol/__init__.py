"""The kinds of `flowcontrol.apiserver.k8s.io`: whose requests are served before whose."""
