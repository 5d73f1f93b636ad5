"""Who may do what: credentials, roles, scopes, limits."""
