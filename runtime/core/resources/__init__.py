"""Resources: amounts by name, what is free, where bundles of them go."""
