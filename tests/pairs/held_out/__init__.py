"""Pairs that nobody looked at while tuning the search.

They were chosen by kind when the bank was begun, before any search ran on
them. Figures on these pairs show how well the search does on models that it
was not written for, so do not tune anything on them.
"""
