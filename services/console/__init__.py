"""The operator's web page: a client of the public REST and WebSocket like any other.

`settings` says where the API is and who may sign in; `gate`, `sign_in`, `sessions` and
`throttle` let people in; `api_client`, `stream_client` and `account_model` follow one account;
`view` turns what is known of it into text, and `page` shows that. NiceGUI appears only in
`app`, `page`, `layout` and the two elements (`live_table`, `equity_chart`).
"""
