"""Langfuse: traces of questions and jobs, feedback on answers, prompts.

All of it may be absent, slow, hanging or refusing, and nothing else changes: what is sent leaves
from threads of its own over bounded queues, and what can't be sent is dropped.
"""
