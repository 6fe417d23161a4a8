"""Pages and plots, which coc-compress, coc-bench and coc-study share."""
