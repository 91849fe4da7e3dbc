"""What may be concluded from a fitted tail: a word and a reason, never a bare number."""

from workbench.spectra.power_law import PowerLaw, Xmin

MIN_EIGENVALUES = 20  # WeightWatcher 0.7.7 switches to its small-sample fit below this
MIN_TAIL = 8  # and its small-sample fit accepts no shorter tail
HEAVY, WEAK = 2.0, 6.0  # WeightWatcher's thresholds: experience with trained networks, not a theorem

FOLK = "a folk threshold on α, without a comparison with noise: WeightWatcher's rules know none"


def degenerate(fit: PowerLaw, xmin: Xmin, count: int, above: float | None = None) -> tuple[str, str] | None:
    """`no tail` and why, where there is too little to fit or to judge; None where there is enough.

    Args:
        fit: the fitted tail.
        xmin: the rule that chose the tail.
        count: number of eigenvalues that the fit saw.
        above: what they lie above, if that is not zero.
    """
    if count == 0 and above is None:
        return "no tail", "all elements are zero"
    if count < MIN_EIGENVALUES:
        noun = "eigenvalue" if count == 1 else "eigenvalues"
        some = f"{count} non-zero {noun}" if above is None else f"{count} {noun} above {above:g}"
        return "no tail", f"{some}: a power law is not told from others below {MIN_EIGENVALUES}"
    if fit.tail_size == 0 and isinstance(xmin, float):
        return "no tail", f"fewer than 2 eigenvalues lie at or above xmin={xmin:g}"
    if fit.tail_size == 0:
        return "no tail", "the eigenvalues are all equal: the tail has no spread"
    if fit.tail_size < MIN_TAIL:
        return "no tail", f"a tail of {fit.tail_size} eigenvalues; {MIN_TAIL} are the least that is fitted"
    return None


def rounded(count: int, above: int, resolution: float) -> tuple[str, str] | None:
    """`no tail` where all but a few of the eigenvalues are what storing the elements made; None elsewhere.

    Args:
        count: number of eigenvalues that the fit saw.
        above: those above the edge of rounding.
        resolution: ε of the dtype in which the elements were stored.
    """
    if above >= MIN_EIGENVALUES or above == count:
        return None
    some = f"{above} of {count} eigenvalues lie above those of rounding to {resolution:.2g}"
    return "no tail", f"{some}: a power law is not told from others below {MIN_EIGENVALUES}"


def verdict(fit: PowerLaw, count: int, above: float) -> tuple[str, str]:
    """The verdict on a searched tail as WeightWatcher gives it, which knows no noise, and its reason.

    Args:
        fit: the fitted tail.
        count: number of eigenvalues that the fit saw.
        above: what they lie above.

    Returns:
        `no tail`, `heavy` (α < 2), `typical` (2 to 6) or `weak` (α > 6); and why.
    """
    word = degenerate(fit, "search", count, above)
    if word is not None:
        return word
    if fit.alpha < HEAVY:
        return "heavy", FOLK
    return ("typical" if fit.alpha <= WEAK else "weak"), FOLK
