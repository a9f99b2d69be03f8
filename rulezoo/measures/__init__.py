"""What is measured of rules and networks: dimensions, angles, locality; and what theory predicts for them."""
