"""Killing everything while documents come in, and accounting for every one of them afterwards.

Read `campaign.run` first: it starts a real stack, lets `clients` send documents and `faults` kill,
waits until the queue is empty, and has `ledger` compare what is there with what was acknowledged.
"""
