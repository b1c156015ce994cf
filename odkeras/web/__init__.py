"""The web page as the front end: `odkeras annotate`, without a Prodigy licence.

It uses the recipe's components in place of Prodigy: `page_host` builds them, `board` is the task queue, `database`
stores the answers, `panel` reports training status, `web_host` connects these, and `app` is the HTTP interface.
"""
