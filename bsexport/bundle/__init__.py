"""A folder to copy to a device that has no network: a package, all that runs it, and a script that installs that."""
