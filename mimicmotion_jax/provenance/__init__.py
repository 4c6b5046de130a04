"""Signs of origin: content credentials (C2PA), an invisible watermark, and the reading of both."""
