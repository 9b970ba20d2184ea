"""What goes wrong in a run, noticed and named: images, numbers, processes, the machine."""
