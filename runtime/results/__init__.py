"""Where results go, memory or a folder, and how they are read back."""
