"""The web page as the host: `odkeras annotate`, without a Prodigy licence.

It plays Prodigy's part for the same components that the recipe returns: `host` builds them, `board` hands tasks out and
takes answers, `database` keeps them, `panel` says how the model is doing, `app` speaks HTTP.
"""
