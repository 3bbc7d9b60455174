"""What is right: closed forms in float64, and beside each the wrong formulas people write.

Nothing here is ever in a process that runs student code.
"""
