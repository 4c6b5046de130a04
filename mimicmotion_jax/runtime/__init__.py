"""What every room stands on: errors, files that appear whole, devices, processes, the hub."""
