"""Container Network Interface: a plug-in of our own, and the calling of other people's plug-ins."""
