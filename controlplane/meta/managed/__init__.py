"""Who owns which field: `metadata.managedFields` and the merge of server-side apply.

Pure; called by the registry's writes. The rules are those of structured-merge-diff v4.4 and apimachinery's field
manager (v0.32).

    sets.py        sets of fields in the form of FieldsV1, and their algebra
    shapes.py      what a type tells about ownership: granular or atomic, by which keys
    elements.py    items of lists -> path elements
    extract.py     object -> the fields it has
    compare.py     two objects -> the fields that changed, the fields that went away
    typed.py       whether an applied object fits its type
    merge.py       live object + applied object -> merged object
    prune.py       takes fields out of an object
    entries.py     `metadata.managedFields` <-> owners
    tracking.py    what a create, update or patch does to the owners
    applying.py    what an apply does to object and owners
    reconcile.py   owners after a change of a custom resource's schema
    conflicts.py   the answer to an apply that would take others' fields
    last_applied.py  the annotation of client-side apply
    scaling.py     owners of an object <-> owners of its Scale
"""
