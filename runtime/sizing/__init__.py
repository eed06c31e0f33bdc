"""How large the cells of a slide are, and at what scale the slide is read for them."""

from .scale import Scaling, choose_scale, sizes_to_look_for
from .survey import sheet_edge

__all__ = ["Scaling", "choose_scale", "sheet_edge", "sizes_to_look_for"]
