"""The kinds of `apps/v1`, one module each with its own rules; `rules` holds what several of them share."""
