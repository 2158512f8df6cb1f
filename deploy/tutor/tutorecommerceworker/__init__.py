"""A plugin for Tutor that runs ecommerce-worker."""
