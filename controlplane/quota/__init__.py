"""What objects use of a ResourceQuota, and whether there is room for more. Pure.

Called by admission (what one write adds) and by the quota controller (what a namespace uses altogether), so that both
count alike. Nothing here reads or writes objects.
"""
