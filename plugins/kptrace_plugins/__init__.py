"""kptrace's own plugins: one file a CNI or proxy, each pure (kptrace/cni.py says what one is)."""
