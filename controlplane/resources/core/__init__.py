"""The kinds of the core group (`v1`), one module per kind or pair of kinds; `catalog.py` gathers them."""
