"""A video file -> clips, uint8 [T,H,W,3]."""
