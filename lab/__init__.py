"""The lab: a miniature bank in containers, and how it is made."""
