"""coc-study: which order of the techniques is best, measured over a tree of chains that share prefixes."""

KINDS = ("pairs", "insert", "sequences", "repeat")
"""What a study compares: both orders of two letters, a third between them, orders of all, repeats."""
