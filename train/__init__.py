"""Training: MC-UNet and its kin, learned jointly on mask, cell boundary and cell density."""
