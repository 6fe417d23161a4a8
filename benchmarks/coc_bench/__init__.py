"""coc-bench: measures compressed artifacts and their peers on the machine it runs on."""
