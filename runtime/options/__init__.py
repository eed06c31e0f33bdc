"""What can be asked for: every option is said once, in a table that Python and the commands share."""

from .kinds import Choice, Number, Option, Pair, RegionsLike, Switch, Whole
from .segment import OPTIONS, Blend, LabelFormat, PrecisionChoice, SegmentOptions, TissueChoice, flag

__all__ = [
    "OPTIONS",
    "Blend",
    "Choice",
    "LabelFormat",
    "Number",
    "Option",
    "Pair",
    "PrecisionChoice",
    "RegionsLike",
    "SegmentOptions",
    "Switch",
    "TissueChoice",
    "Whole",
    "flag",
]
