"""One trainer for each kind of network, with their losses, discriminators and optimiser, and validation."""
