"""How a picture may look: light and colour, stains, and sections drawn around known nuclei."""
