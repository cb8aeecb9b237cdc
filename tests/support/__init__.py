"""What several folders of tests share: small models and datasets, servers, and ways to run the command."""
