"""The web page as the front end: `odkeras annotate`, without a Prodigy licence.

`service` has the operations of the page: it connects the session, the answer database, the task `queue`, the `outbox`
for the trainer and the `panel` with the training status. `app` is the HTTP interface, `server` runs it.
"""
