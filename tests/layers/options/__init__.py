"""Options of stock layers that only one library has, as comparisons.

The layer matrix compares both libraries with one definition, so it cannot set
an option that one of them lacks. Each function here sets such options, and
returns what the stock layer computes and what the definition says.
"""
