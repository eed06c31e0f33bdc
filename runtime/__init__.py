"""Runtime: stream images of any size through an engine and turn its planes into cells."""
