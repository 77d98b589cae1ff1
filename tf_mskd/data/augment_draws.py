"""Which numbered draws the entries of a list of transforms read."""

DRAWS_PER_STEP = 16  # draw numbers reserved for one entry of the list of names
STRONG_DRAW = 1 << 20  # the draw that says who has the strong part; beyond all entries
