# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What GPUs a host has, how they are connected, and what keeps them from being used.

Runs on managed hosts: the standard library only.

* ``facts`` are the words in which the rest of the project speaks of GPUs,
* ``reading`` turns what ``nvidia-smi`` prints into them,
* ``host`` asks the host; ``host.gather()`` is the door.

Without Ansible, on a GPU host: ``PYTHONPATH=collections python3 -m ansible_collections.sovereign.dify.plugins.module_utils.gpu_info`` prints as JSON
what the module ``gpu_info`` returns.
"""
