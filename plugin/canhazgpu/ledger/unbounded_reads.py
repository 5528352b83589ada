"""Reads that nobody may do who may only look; a value."""

UNBOUNDED_READS = "-watch -hrandfield -srandmember -zrandmember"
"""As rules of Redis' ACL: reads whose cost their arguments set. One element is given a thousand
million times, and each key that is watched is compared with all before it. Nothing here needs
them."""
