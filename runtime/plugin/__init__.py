"""cellseg inside napari: results as layers, and a widget that segments; ``napari.yaml`` says so to napari."""
