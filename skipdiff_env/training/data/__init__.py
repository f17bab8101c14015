"""Training crops: files, images in memory or streamed, drawings, augmentation, and held-out pictures."""
