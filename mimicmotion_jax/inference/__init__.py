"""From files to files: a picture and a motion on disk become a video on disk, one or many."""
