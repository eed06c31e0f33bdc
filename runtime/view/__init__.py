"""Look at finished results in a browser: tiles drawn on the server, nothing but pictures sent."""
