"""The contracts and the harness: everything else plugs into what is here."""
