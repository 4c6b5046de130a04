"""Foundation of all packages: errors, atomic files, devices, processes, the hub."""
