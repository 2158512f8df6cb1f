"""How the pages of Django's admin site write times: it takes formats of a language before those of the settings."""
