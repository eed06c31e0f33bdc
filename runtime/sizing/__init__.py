"""How large the cells of a slide are, and at what scale the slide is read for them."""

from .scale import Scaling, choose_scale, must_look
from .survey import sheet_edge

__all__ = ["Scaling", "choose_scale", "must_look", "sheet_edge"]
