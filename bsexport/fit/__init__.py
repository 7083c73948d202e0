"""Does a package answer within so much memory? Shown in fresh processes that the system holds to it."""
