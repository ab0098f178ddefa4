"""A workflow in the form that Dify reads: with every field without which its own node classes refuse it."""

from __future__ import annotations

import itertools
from typing import Any


def workflow_graph(provider: str, model: str, tokens: int) -> dict[str, Any]:
    """Give the graph of a workflow that has the sandbox write its input ``query`` in capitals, and a model answer that.

    Args:
        provider: Provider of the model.
        model: Name of the model.
        tokens: Tokens that it may answer with.

    Returns:
        Nodes and edges, as ``workflows/draft`` takes them. The outputs are ``text``, the answer, and ``loud``, what was asked.
    """
    chosen = {"provider": provider, "name": model, "mode": "chat", "completion_params": {"max_tokens": tokens}}
    code = "def main(q: str) -> dict:\n    return {'loud': q.upper()}"
    nodes: dict[str, dict[str, Any]] = {
        "start": {"variables": [{"variable": "query", "label": "query", "type": "paragraph", "required": True}]},
        "code": {
            "code_language": "python3",
            "code": code,
            "variables": [{"variable": "q", "value_selector": ["start", "query"]}],
            "outputs": {"loud": {"type": "string"}},
        },
        "llm": {"model": chosen, "prompt_template": [{"role": "user", "text": "{{#code.loud#}}"}], "context": {"enabled": False}},
        "end": {"outputs": [{"variable": "text", "value_selector": ["llm", "text"]}, {"variable": "loud", "value_selector": ["code", "loud"]}]},
    }
    return {
        "nodes": [{"id": name, "data": {"type": name, "title": name, **data}} for name, data in nodes.items()],
        "edges": [{"source": source, "target": target} for source, target in itertools.pairwise(nodes)],
    }
