"""A transformer and its trainers in plain PyTorch: files in, files out."""
