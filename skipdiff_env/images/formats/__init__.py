"""File formats that have readers of their own, and what files hold besides pixels: metadata and profiles."""
