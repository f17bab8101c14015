"""What people own: degraded inputs, and how well models and other programs cope with them."""
