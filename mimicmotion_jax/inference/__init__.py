"""Generation: inputs to arrays, arrays to frames, frames to files; lists of jobs."""
