"""Serving of language models: replicas that answer many requests side by side, streamed, behind OpenAI's interface."""
