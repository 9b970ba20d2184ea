"""What tools call that look at data and trained networks: nothing here trains."""
