"""Numbers that look random and are the same everywhere: the sequences of the suites of chips."""


class Dice:
    """A linear congruential generator (the constants of Knuth's MMIX), of which the upper half is used."""

    def __init__(self, seed):
        self.state = seed * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        self.below(2)

    def below(self, limit):
        """From 0 to limit - 1."""
        self.state = self.state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        return (self.state >> 32) * limit >> 32

    def of(self, things):
        """One of these."""
        return things[self.below(len(things))]
