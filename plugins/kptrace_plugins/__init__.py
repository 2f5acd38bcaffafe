"""kptrace's own plugins: one file a CNI or proxy, each pure (kptrace/plugins/registry.py says what
one is).
"""
