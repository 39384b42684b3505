"""What `import guardtrain as gt` gives: the commands' work as functions, with the commands' defaults."""
