# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: lines of the log store as a report of slow requests, slow SQL and errors."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slow_requests
short_description: Where the time of slow requests went, by the lines of the log store
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Joins what nginx, the model gateway and dify_proxy have logged of a request by its id, and shares its time out among them.
  - Groups slow statements of PostgreSQL without their values, and errors by their cause.
  - A number that is missing, or is none, is told as a note, and its time as C(unknown).
positional: top, limit
options:
  _input:
    description: Lines as the log store gives them, all values as text, by question. One that is left out has no lines.
    type: dict
    required: true
    suboptions:
      entry: {description: Lines of nginx's access log., type: list, elements: dict}
      hops: {description: 'All lines of C(nginx), C(model_gateway) and C(dify_proxy) with the ids of those.', type: list, elements: dict}
      statements: {description: Lines of C(postgresql) that tell C(milliseconds)., type: list, elements: dict}
      statuses: {description: 'Counts of nginx by C(status) and C(limit): C(lines), C(earliest), C(latest), C(example).', type: list, elements: dict}
      ends: {description: 'Counts of the proxies by C(service), C(status) and C(end), likewise.', type: list, elements: dict}
      messages: {description: Lines of any service with the level error or critical., type: list, elements: dict}
  top: {description: 'Most requests, statements and errors to give.', type: int, required: true}
  limit: {description: Most lines that were asked for at once. A question with so many is noted., type: int, default: 10000}
"""

EXAMPLES = r"""
- name: Show where the time of the slowest requests went
  ansible.builtin.debug:
    msg: "{{ (lines | sovereign.dify.slow_requests(10)).requests | sovereign.dify.text_table(['seconds', 'slowest', 'bar', 'path', 'request_id']) }}"
  vars:
    lines:
      entry: "{{ slow.content.split('\n') | select | map('from_json') | list }}"
      hops: "{{ hops.content.split('\n') | select | map('from_json') | list }}"
"""

RETURN = r"""
_value:
  description: The report.
  type: dict
  contains:
    requests:
      description:
        - The slowest first, each with C(time) (of its end), C(request_id), C(client), C(tier), C(method), C(path), C(model), C(status), C(seconds),
          C(slowest) (the hop that cost most), C(hops) (milliseconds by hop), C(bar) and C(notes).
      type: list
      elements: dict
    statements:
      description: 'By C(database), C(user) and C(statement): C(count), C(total_ms), C(worst_ms), C(worst_at), C(host); the largest total first.'
      type: list
      elements: dict
    errors:
      description: 'By C(service) and C(cause): C(count), C(first), C(last) and C(request_id), an example; the most frequent first.'
      type: list
      elements: dict
    legend: {description: 'What the letters of the bars mean, a line each.', type: list, elements: str}
    notes: {description: 'What could not be read, in sentences.', type: list, elements: str}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.slow_requests import report

QUESTIONS = ("entry", "hops", "statements", "statuses", "ends", "messages")


def slow_requests(answers: Mapping[str, Sequence[Mapping[str, Any]]], top: int, limit: int = 10000) -> dict[str, Any]:
    """Make a report of lines.

    Args:
        answers: Lines by question; see ``report`` in the module utility of this name.
        top: Most requests, statements and errors to give.
        limit: Most lines that were asked for at once.

    Returns:
        The report.

    Raises:
        AnsibleFilterError: There is a question that is none, or an answer that is no list of dictionaries.
    """
    if unknown := sorted(set(answers) - set(QUESTIONS)):
        raise AnsibleFilterError(f"slow_requests: {unknown[0]!r} is none of the questions {', '.join(QUESTIONS)}")
    for name, lines in answers.items():
        if isinstance(lines, str) or not isinstance(lines, Sequence) or not all(isinstance(line, Mapping) for line in lines):
            raise AnsibleFilterError(f"slow_requests: {name}: give a list of dictionaries, a line of the store each")
    said = {name: [{str(key): str(value) for key, value in line.items()} for line in lines] for name, lines in answers.items()}
    return report(said, int(top), int(limit))


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"slow_requests": slow_requests}
