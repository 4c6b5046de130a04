"""Pages for people who animate pictures: the preflight of a motion, and the studio in the browser."""
