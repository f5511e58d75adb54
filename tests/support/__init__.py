"""What tests start, simulate and generate: a package for each subject, no tests."""
