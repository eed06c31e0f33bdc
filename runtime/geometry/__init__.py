"""Integers that say where: tiles, bands, the parts of a slide that are looked at."""
