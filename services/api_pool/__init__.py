"""The REST side: accounts, reads at a known age, stream assignment.

`main` starts uvicorn on `app.create_app(context)`; `context` wires settings to use cases.
"""
