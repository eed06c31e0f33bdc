"""What every wing needs and none owns: threads, buffers, files."""
