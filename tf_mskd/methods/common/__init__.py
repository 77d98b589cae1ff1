"""What the methods share: their base, their parts, and the way from a name to one."""
