"""The web page: a query goes in, ranked tracklets come out. ``serving.py`` starts it, ``app.py`` puts its parts together."""
