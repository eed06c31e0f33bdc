"""How good a segmentation is: label images compared with each other."""
