"""One module for each noun of the command line; `app` imports it when the noun is typed."""
