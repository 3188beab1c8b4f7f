"""Who stands behind a Service: the Endpoints and the EndpointSlice controller.

Both have a loop (`endpoints_controller`, `slice_controller`) over pure rules: `membership` (which pods),
`subsets` and `slices` (what they look like), `packing` (into which slice). `triggers` wakes the loops,
`trigger_times` dates changes.
"""
