"""A run from its flags to its result: configuration, folder, experiment."""
