from __future__ import annotations
class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
"""
