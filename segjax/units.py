"""Numbers as text, with a unit."""


def si(number: float, unit: str) -> str:
    """A number with three digits and a prefix, such as "1.23 GFLOP"."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}{unit}"
    return f"{number:.0f} {unit}"


def memory(size: float) -> str:
    """Bytes of memory, in GiB or MiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"
