"""coc-compress --auto: the settings of a chain, searched over the tree of stages that studies share."""
