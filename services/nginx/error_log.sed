# What nginx writes of a request in its error log has the query string in it, with tickets and tokens.
# So an entry ends where that begins: the access log tells the rest of the request, by the number of
# its connection. The address of the replica is kept.
s/, (sub)?request: ".*, upstream: "(https?:\/\/[0-9.:]+)\/?.*$/, upstream: "\2"/
t
s/, (sub)?request: ".*$//
s/, (host|referrer|login|upstream): ".*$//
# A slot without a task is no error, and there is a line for each, every other second.
/ [a-z]+-[0-9]+ could not be resolved \(3: Host not found\)$/d
