"""A broker: the process that holds accounts, fills orders, and tells the terminals."""
