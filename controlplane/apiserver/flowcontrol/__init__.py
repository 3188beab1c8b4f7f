"""Priority and fairness: whose turn it is when more is asked than can be done at once.

`rules` decides which priority level and flow a request belongs to (pure), `queues` gives the seats of one level fairly
to its flows, `gate` is what the core asks, `follow` keeps it to the FlowSchema and PriorityLevelConfiguration objects.
"""
