"""/metrics: `series` counts while requests come and go, `requests` says what, `exposition` prints it for Prometheus."""
