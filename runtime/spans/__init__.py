"""One slide in spans: parts of it that are computed apart, and make together what one run makes."""
