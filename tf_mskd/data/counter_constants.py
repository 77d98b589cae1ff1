"""The constants of the counter-based draws; see `counter_random`."""

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd
FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # shift, then multiply
LAST_SHIFT = 31
