"""Numbers from predictions: exact over a split, saved, so that any metric can follow later.

`exact` runs a model over every example once, `predictions` keeps what it said, `metrics`
counts. Nothing here knows how a model was trained.
"""
