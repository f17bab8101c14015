"""Everything that leads from noise and a condition to a picture."""
