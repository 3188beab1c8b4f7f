"""ReplicaSets and ReplicationControllers: keep the wanted number of pods. One engine for both kinds.

`controller` is the loop, `flavours` what differs between the kinds, `ranking` chooses which pods go first, `status`
works out what is reported.
"""
