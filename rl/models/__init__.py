"""Models: networks whose parameters lie in one flat array, and the policy that acts with one.

`spec`, `architecture` and `layout` are free of torch, for the driver; the other modules load in actors only.
"""
