"""How findings are shown: formats, tables and figures."""
