"""Pictures and videos in and out: decode, encode, audio, crop and resize, panels side by side, provenance."""
